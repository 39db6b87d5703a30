"""Waking up: one APScheduler entry that stands for the next due instant of all jobs."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.errors import Unavailable

LONGEST_WAIT = timedelta(seconds=10)
RETRY_AFTER = timedelta(seconds=5)
STALLED_AFTER = 2.0
LONGEST_LOOK = 120.0  # a database that is locked, or away, ends each of its few steps within 30 s
_ENTRY = "next-instant"

Look = Callable[[list[str]], Awaitable[Mapping[str, datetime | None]]]
logger = logging.getLogger(__name__)


class _NextInstant(BaseTrigger):  # type: ignore[misc] # APScheduler 3 has no types
    """Due at the earliest instant that anybody waits for, and after the longest wait at the latest.

    As it fires, the instants that are due have not been looked at yet: the wake-up re-arms the entry when
    they have. Until then only the longest wait stands; a time that is not later than `now` would keep
    APScheduler counting misfires for ever.
    """

    def __init__(self, next_wake: Callable[[datetime], datetime]) -> None:
        self._next_wake = next_wake

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Asked by APScheduler as an entry is added and each time it fires."""
        return self._next_wake(now) if previous is None else now + LONGEST_WAIT


class ClockWork:
    """Calls `look` with the names of the jobs that are due; it answers with the next instant of each.

    APScheduler only wakes it: an exception in APScheduler's main loop ends that loop silently, so the
    wake-up itself says when it is next expected, and `mend` starts a new one when it does not come.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._heap: list[tuple[datetime, str]] = []
        self._instants: dict[str, datetime] = {}
        self._scheduler: AsyncIOScheduler | None = None
        self._expected_at = clock.monotonic()
        self._awake = False
        self._woken_at = clock.monotonic()
        self._looking: asyncio.Task[None] | None = None
        self.beat_at = clock.utcnow()

    def start(self, instants: Mapping[str, datetime | None]) -> None:
        """Begin to wait for the given instants, job by job."""
        self._instants.clear()
        self._heap.clear()
        self._expect(instants)
        self.stop()
        self._begin()

    def stop(self) -> None:
        """Wake nobody any more."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None

    async def quit(self) -> None:
        """Wake nobody any more, and wait for the look that is under way."""
        self.stop()
        if self._looking is not None:
            await asyncio.wait((self._looking,))

    def mend(self) -> bool:
        """Start APScheduler anew if its wake-up has not come when it should have; say whether."""
        late = clock.monotonic() - self._expected_at
        if self._scheduler is None or self._awake or late < STALLED_AFTER:
            return False
        logger.error("the scheduling loop has ended; it is started anew")
        self.stop()
        self._begin()
        return True

    @property
    def fresh(self) -> bool:
        """Whether wake-ups come when they are expected, and end."""
        now = clock.monotonic()
        if self._awake:
            return now - self._woken_at < LONGEST_LOOK
        return now - self._expected_at < 2 * STALLED_AFTER

    def next_instants(self) -> Mapping[str, datetime]:
        """Return the instant that each scheduled job waits for."""
        return dict(self._instants)

    def renew(self) -> None:
        """Look at every job, by the clock as it stands now: a step of it must not be slept through."""
        self._heap.clear()
        self._expect(dict.fromkeys(self._instants, clock.utcnow()))
        if self._scheduler is not None and not self._awake:
            self.stop()
            self._begin()

    def hasten(self, names: Iterable[str]) -> None:
        """Look at these jobs as soon as possible; what they wait for is asked anew then."""
        wanted = dict.fromkeys(names, clock.utcnow())
        if not wanted:
            return
        self._expect(wanted)
        if not self._awake:
            self._rearm()

    def _begin(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.start()
        self._scheduler.add_job(self._wake, _NextInstant(self._next_wake), id=_ENTRY)
        self._note_expected(clock.utcnow())

    def _next_wake(self, now: datetime) -> datetime:
        # While awake the heap still holds what is being looked at; the wake-up re-arms when it is done.
        earliest = self._heap[0][0] if self._heap and not self._awake else None
        latest = now + LONGEST_WAIT
        return latest if earliest is None else max(min(earliest, latest), now)

    def _note_expected(self, now: datetime) -> None:
        self._expected_at = clock.monotonic() + (self._next_wake(now) - now).total_seconds()

    async def _wake(self) -> None:
        """Begin to look in a task of our own: APScheduler cancels what it runs as it is shut down."""
        if not self._awake:  # a look may take longer than the longest wait: it re-arms when it is done
            self._awake, self._woken_at = True, clock.monotonic()
            self._looking = asyncio.create_task(self._look_at_due(), name="look")

    async def _look_at_due(self) -> None:
        try:
            self.beat_at = now = clock.utcnow()
            due = self._due(now)
            if due:
                self._expect(await self._look_safely(due))
        finally:
            self._awake = False
            self._rearm()

    async def _look_safely(self, due: list[str]) -> Mapping[str, datetime | None]:
        try:
            return await self._look(due)
        except (DBAPIError, Unavailable) as exc:
            said = getattr(exc, "orig", None) or exc
            logger.warning(
                "what is due cannot be written down: %s; it is looked at again in %s", said, RETRY_AFTER
            )
        except Exception:  # nothing was decided, so nothing is lost: the same jobs are looked at again
            logger.exception("planning failed; it is tried again in %s", RETRY_AFTER)
        return dict.fromkeys(due, clock.utcnow() + RETRY_AFTER)

    def _rearm(self) -> None:
        if self._scheduler is None:
            return
        now = clock.utcnow()
        self._note_expected(now)
        self._scheduler.modify_job(_ENTRY, next_run_time=self._next_wake(now))

    def _due(self, now: datetime) -> list[str]:
        names: dict[str, None] = {}
        while self._heap and self._heap[0][0] <= now:
            instant, name = heapq.heappop(self._heap)
            if self._instants.get(name) == instant:
                names[name] = None
        return list(names)

    def _expect(self, instants: Mapping[str, datetime | None]) -> None:
        for name, instant in instants.items():
            if instant is None:
                self._instants.pop(name, None)
                continue
            self._instants[name] = instant
            heapq.heappush(self._heap, (instant, name))
