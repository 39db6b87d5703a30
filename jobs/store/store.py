"""The way to the database from a coroutine: one writer thread with group commit, a few reading threads.

A *verb* is a plain function of a connection. Verbs that wait together share one transaction, a savepoint
each, and one fsync; each caller awaits its own result. Verbs never touch the network.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.errors import Unavailable
from jobs.store.engine import kind_of, open_engine

P = ParamSpec("P")
T = TypeVar("T")

READING_THREADS = 2
LARGEST_GROUP = 64  # a group's callers all wake in one turn of the loop: 256 hold it for half a second
CLOSE_TIMEOUT = 30.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
PASSING = ("full", "locked", "readonly")


@dataclass(slots=True)
class _Waiting:
    verb: Callable[[Connection], Any]
    result: "Future[Any]"


class Store:
    """Runs verbs. Opened by the composition root, closed by it; safe to use from one event loop."""

    def __init__(self, url: str, *, on_trouble: Callable[[DBAPIError], None] = lambda _error: None) -> None:
        self.url = url
        self._on_trouble = on_trouble
        self._writing = open_engine(url, writes=True)
        self._reading = open_engine(url, writes=False, connections=READING_THREADS)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="store-read")
        self._writer = threading.Thread(target=self._write_until_closed, name="store-write", daemon=True)
        self._writer.start()
        self._closed = False
        self.fresh_at = clock.monotonic()
        self.last_group_seconds = 0.0

    async def write(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a verb in the next group and return its result once that group is committed.

        A cancelled caller does not stop its verb: it has been handed over, and will be committed or not
        as if the caller were still there.
        """
        waiting: _Waiting = _Waiting(lambda connection: verb(connection, *args, **kwargs), Future())
        if self._closed:
            raise Unavailable("the store is closed")
        self._queue.put(waiting)
        result: T = await asyncio.wrap_future(waiting.result)
        return result

    async def insist(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a verb as `write` does, again and again while the database is full, locked or read-only.

        For what must not be lost to a passing trouble: the caller's deadline, or its cancellation, ends it.
        """
        delay = FIRST_RETRY
        while True:
            try:
                return await self.write(verb, *args, **kwargs)
            except DBAPIError as exc:
                if kind_of(exc) not in PASSING:
                    raise
                self._on_trouble(exc)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY)

    async def read(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a reading verb on a snapshot of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: self._read(verb, *args, **kwargs))

    def close(self) -> None:
        """Write what was handed over, then let go of every connection. Blocks for 30 s at most."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join(CLOSE_TIMEOUT)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._writing.dispose()
        self._reading.dispose()

    def _read(self, verb: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._reading.connect() as connection, connection.begin():
            return verb(connection, *args, **kwargs)

    def _write_until_closed(self) -> None:
        closing = False
        while not closing:
            group = [self._queue.get()]
            while len(group) < LARGEST_GROUP and not self._queue.empty():
                group.append(self._queue.get())
            closing = None in group
            work = [waiting for waiting in group if waiting is not None]
            if work:
                self._write_group(work)
        self._refuse_the_rest()

    def _write_group(self, group: list[_Waiting]) -> None:
        started = clock.monotonic()
        try:
            with self._writing.connect() as connection, connection.begin():
                settled = [_run_in_savepoint(connection, waiting) for waiting in group]
        except Exception as exc:  # the transaction as a whole failed: everybody in it is told
            settled = [_Failed(exc)] * len(group)
        self.fresh_at = clock.monotonic()
        self.last_group_seconds = self.fresh_at - started
        for waiting, result in zip(group, settled, strict=True):
            _hand_over(waiting, result)

    def _refuse_the_rest(self) -> None:
        while not self._queue.empty():
            waiting = self._queue.get()
            if waiting is not None:
                _hand_over(waiting, _Failed(Unavailable("the store is closed")))


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


def _run_in_savepoint(connection: Connection, waiting: _Waiting) -> Any:
    connection.exec_driver_sql("SAVEPOINT verb")
    try:
        result = waiting.verb(connection)
    except Exception as exc:  # only this verb failed; it is raised where it was asked for
        try:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT verb")
        except DBAPIError:  # the database has ended the whole transaction, as SQLite does when it is full
            raise exc from None
        result = _Failed(exc)
    connection.exec_driver_sql("RELEASE SAVEPOINT verb")
    return result


def _hand_over(waiting: _Waiting, result: Any) -> None:
    if not waiting.result.set_running_or_notify_cancel():
        return
    if isinstance(result, _Failed):
        waiting.result.set_exception(result.error)
    else:
        waiting.result.set_result(result)
