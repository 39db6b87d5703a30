"""The way to the database from a coroutine: one writer thread with group commit, a few reading threads.

A *verb* is a plain function of a connection. Verbs that wait together share one transaction, a savepoint
each, and one fsync; each caller awaits its own result. Verbs never touch the network.
"""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from jobs import clock
from jobs.errors import Unavailable
from jobs.store import postgresql, revision
from jobs.store.engine import kind_of, open_engine
from jobs.store.revision import OtherRevision

P = ParamSpec("P")
T = TypeVar("T")

READING_THREADS = 2
LARGEST_GROUP = 64  # a group's callers all wake in one turn of the loop: 256 hold it for half a second
CLOSE_TIMEOUT = 30.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
ASKED_EVERY = 1.0
PASSING = ("full", "locked", "readonly", "io", "unreachable")
PASSING_FOR_READERS = ("locked", "io", "unreachable")


@dataclass(slots=True)
class _Waiting:
    verb: Callable[[Connection], Any]
    result: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _InDoubt:
    """A group whose COMMIT a server has not answered, with what its callers are told if it stands.

    `transaction` is the server's name for it, by which it can be asked what became of it.
    """

    group: list[_Waiting]
    settled: list[Any]
    transaction: str
    error: DBAPIError


class Store:
    """Runs verbs. Opened by the composition root, closed by it; safe to use from one event loop."""

    def __init__(self, url: str, *, on_trouble: Callable[[DBAPIError], None] = lambda _error: None) -> None:
        self.url = url
        self._on_trouble = on_trouble
        self._writing = open_engine(url, writes=True)
        self._reading = open_engine(url, writes=False, connections=READING_THREADS)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._doubt: _InDoubt | None = None
        self._readers = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="store-read")
        self._writer = threading.Thread(target=self._write_until_closed, name="store-write", daemon=True)
        self._writer.start()
        self._closed = False
        self._turned_at, self._at_work = clock.monotonic(), False
        self.last_group_seconds = 0.0
        self.refused: Exception | None = None  # why the newest group was not written, where it was not
        self._other: OtherRevision | None = None

    @property
    def fresh_at(self) -> float:
        """When the writer has last begun or ended a group, by the monotonic clock; now, where it has no work.

        It has none either while nobody can read what there would be to write: a database that is away.
        """
        rests = not self._at_work and self._queue.empty()
        return clock.monotonic() if rests else self._turned_at

    async def write(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a verb in the next group and return its result once that group is committed.

        A cancelled caller does not stop its verb: it has been handed over, and will be committed or not
        as if the caller were still there.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(lambda connection: verb(connection, *args, **kwargs), result)
        if self._closed:
            raise Unavailable("the store is closed")
        if self._other is not None:
            raise self._other
        self._queue.put(waiting)
        return await result

    async def insist(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a verb as `write` does, again and again while the database is full, locked, read-only or away.

        For what must not be lost to a passing trouble: the caller's deadline, or its cancellation, ends it.
        """
        return await _until_it_passes(
            lambda: self.write(verb, *args, **kwargs), PASSING, self._on_trouble, self._refuses
        )

    async def read(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a reading verb on a snapshot of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: self._read(verb, *args, **kwargs))

    async def insist_on_reading(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a reading verb, again and again while the database cannot be reached, as `insist` does."""
        return await _until_it_passes(
            lambda: self.read(verb, *args, **kwargs), PASSING_FOR_READERS, self._on_trouble, self._refuses
        )

    def _refuses(self) -> bool:
        return self.refused is not None

    async def check_revision(self) -> None:
        """Write nothing while the database is of another revision; raises OtherRevision while it is."""
        try:
            await self.read(revision.require)
        except OtherRevision as exc:
            self.refused = self._other = exc
            raise
        self._other = None

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
            group = self._next_group()
            closing = None in group
            work = [waiting for waiting in group if waiting is not None]
            if self._doubt is not None:
                self._doubt = self._still_in_doubt(self._doubt, closing=closing)
            if work and self._doubt is not None:  # nothing of it was begun: its callers may try again
                _hand_over_all(work, [_Failed(self._doubt.error)] * len(work))
            elif work:
                self._write_group(work)
        self._refuse_the_rest()

    def _next_group(self) -> list[_Waiting | None]:
        """Wait for work, without an end but while a commit is in doubt; None among it means the end."""
        try:
            group = [self._queue.get(timeout=ASKED_EVERY if self._doubt else None)]
        except queue.Empty:
            return []
        while len(group) < LARGEST_GROUP and not self._queue.empty():
            group.append(self._queue.get())
        return group

    def _write_group(self, group: list[_Waiting]) -> None:
        started = self._turned_at = clock.monotonic()
        self._at_work = True
        settled: list[Any] = []
        transaction = refused = None
        try:
            with self._writing.connect() as connection, connection.begin():
                transaction = postgresql.transaction_of(connection)
                settled = [_run_in_savepoint(connection, waiting) for waiting in group]
        except Exception as exc:  # the transaction as a whole failed: everybody in it is told
            if transaction and settled and isinstance(exc, DBAPIError) and kind_of(exc) == "unreachable":
                self._doubt = _InDoubt(group, settled, transaction, exc)
            refused, settled = exc, [_Failed(exc)] * len(group)
        self.refused, self._turned_at, self._at_work = refused, clock.monotonic(), False
        self.last_group_seconds = self._turned_at - started
        if self._doubt is None:
            _hand_over_all(group, settled)

    def _still_in_doubt(self, doubt: _InDoubt, *, closing: bool) -> _InDoubt | None:
        """Ask the server what became of a commit, and tell its callers; return it while nobody answers."""
        settled: list[Any] = [_Failed(doubt.error)] * len(doubt.group)
        try:
            with self._writing.connect() as connection, connection.begin():
                if postgresql.has_committed(connection, doubt.transaction):
                    settled = doubt.settled
        except DBAPIError:
            if not closing:
                self._turned_at = clock.monotonic()
                return doubt
        _hand_over_all(doubt.group, settled)
        return None

    def _refuse_the_rest(self) -> None:
        while not self._queue.empty():
            waiting = self._queue.get()
            if waiting is not None:
                _hand_over_all([waiting], [_Failed(Unavailable("the store is closed"))])


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


async def _until_it_passes(
    once: Callable[[], Awaitable[T]],
    passing: tuple[str, ...],
    on_trouble: Callable[[DBAPIError], None],
    still: Callable[[], bool],
) -> T:
    delay = FIRST_RETRY
    while True:
        try:
            return await once()
        except OtherRevision:
            pass  # whoever has found it out has told it
        except DBAPIError as exc:
            if kind_of(exc) not in passing:
                raise
            on_trouble(exc)
        await _rest(delay, still)
        delay = min(2 * delay, LONGEST_RETRY)


async def _rest(seconds: float, still: Callable[[], bool]) -> None:
    """Wait so long, or until somebody's write has gone through; a moment in any case."""
    left = seconds
    while True:
        await asyncio.sleep(min(left, FIRST_RETRY))
        left -= FIRST_RETRY
        if left <= 0 or not still():
            return


def _run_in_savepoint(connection: Connection, waiting: _Waiting) -> Any:
    _say(connection, "SAVEPOINT verb")
    try:
        result = waiting.verb(connection)
    except Exception as exc:  # only this verb failed; it is raised where it was asked for
        try:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT verb")
        except PendingRollbackError:  # the server has gone; the verb's own error says so
            raise exc from None
        except DBAPIError as lost:  # the whole transaction has ended, as SQLite ends it when the disk is full
            raise (lost if kind_of(lost) == "unreachable" else exc) from None
        result = _Failed(exc)
    _say(connection, "RELEASE SAVEPOINT verb")
    return result


def _say(connection: Connection, statement: str) -> None:
    """Execute what every verb needs twice; SQLAlchemy takes many times as long over it as SQLite."""
    if connection.dialect.name == "sqlite":
        connection.connection.cursor().execute(statement)
    else:
        connection.exec_driver_sql(statement)


def _hand_over_all(group: list[_Waiting], settled: list[Any]) -> None:
    """Wake everybody of a group in one turn of their loop; of a loop that has ended nobody waits any more."""
    loop = group[0].result.get_loop()
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, group, settled)


def _settle(group: list[_Waiting], settled: list[Any]) -> None:
    for waiting, result in zip(group, settled, strict=True):
        if waiting.result.done():  # its caller was cancelled
            continue
        if isinstance(result, _Failed):
            waiting.result.set_exception(result.error)
        else:
            waiting.result.set_result(result)
