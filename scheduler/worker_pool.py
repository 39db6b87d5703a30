"""The workers: claimed runs become asyncio tasks, a bounded number at a time."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from jobs.run import ClaimedRun, Reason
from scheduler.logs import lines_of

Work = Callable[[ClaimedRun], Awaitable[object]]
CANCEL_TIMEOUT = 5.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """How busy the workers are."""

    running: int
    waiting: int
    limit: int
    draining: bool


class WorkerPool:
    """Five verbs: submit, recover, limit, drain, health. An engine for many machines can stand here."""

    def __init__(self, work: Work, *, limit: int) -> None:
        self._work, self._limit = work, limit
        self._waiting: deque[ClaimedRun] = deque()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._resting: set[int] = set()
        self._returning: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._draining = False

    def submit(self, runs: Iterable[ClaimedRun]) -> None:
        """Take claimed runs; they begin in this order as workers are free."""
        self._waiting.extend(runs)
        self._fill()

    def recover(self, runs: Iterable[ClaimedRun]) -> None:
        """Take runs that an earlier process had queued; they go first."""
        self._waiting.extendleft(reversed(list(runs)))
        self._fill()

    def limit(self, number: int) -> None:
        """Change how many run at once; running ones are left alone."""
        self._limit = number
        self._fill()

    def health(self) -> Health:
        """Say how busy the workers are."""
        return Health(len(self._running), len(self._waiting), self._limit, self._draining)

    async def drain(self, timeout: timedelta) -> int:
        """Begin nothing more, give what runs its time, then cancel it; return how many were cancelled.

        What waits stays queued in the ledger, and is taken up by the next daemon.
        """
        self._draining = True
        tasks = list(self._running.values())
        if not tasks:
            return 0
        _done, late = await asyncio.wait(tasks, timeout=timeout.total_seconds())
        for task in late:
            task.cancel(Reason.SHUTDOWN)
        if late:
            await asyncio.wait(late, timeout=CANCEL_TIMEOUT)
        return len(late)

    def cancel(self, run_id: int, reason: Reason) -> bool:
        """Cancel a run that is at work here; returns whether it is."""
        task = self._running.get(run_id)
        if task is not None:
            task.cancel(reason)
        return task is not None

    def forget(self, run_id: int) -> bool:
        """Drop a run that waits for a worker; returns whether it was here."""
        kept = [run for run in self._waiting if run.id != run_id]
        here = len(kept) < len(self._waiting)
        self._waiting = deque(kept)
        return here

    def cancel_all(self) -> None:
        """Cancel what runs, now: a drain under way ends with it."""
        for task in self._running.values():
            task.cancel(Reason.SHUTDOWN)

    @asynccontextmanager
    async def resting(self, run_id: int) -> AsyncIterator[None]:
        """Give a run's place to others while the body waits; it goes on when one is free again."""
        self._resting.add(run_id)
        self._fill()
        try:
            yield
            if self._at_work >= self._limit:
                free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._returning.append((run_id, free))
                await free
        finally:
            self._resting.discard(run_id)

    @property
    def _at_work(self) -> int:
        return len(self._running) - len(self._resting)

    def _fill(self) -> None:
        while self._returning and self._at_work < self._limit:
            run_id, free = self._returning.popleft()
            if not free.done():
                self._resting.discard(run_id)
                free.set_result(None)
        while self._waiting and self._at_work < self._limit and not self._draining:
            run = self._waiting.popleft()
            task = asyncio.create_task(self._guarded(run), name=f"run-{run.id}")
            self._running[run.id] = task
            task.add_done_callback(partial(self._ended, run.id))

    def _ended(self, run_id: int, task: asyncio.Task[None]) -> None:
        if self._running.get(run_id) is task:  # else its next try has begun already
            del self._running[run_id]
            self._resting.discard(run_id)
        self._fill()

    async def _guarded(self, run: ClaimedRun) -> None:
        with lines_of(run):
            try:
                await self._work(run)
            except Exception:  # the run's end could not be written: said here, settled by the next recovery
                logger.exception("run %d of %s was not brought to its end", run.id, run.job)
