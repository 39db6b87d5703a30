"""What a daemon forgets by itself: old runs, alerts and processes, in small portions."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.budget import day_begins
from jobs.errors import Unavailable
from jobs.run import RunState
from jobs.store import prune, soundness
from jobs.store.engine import LONGEST_LOG, sqlite_path
from jobs.store.prune import Keep
from jobs.store.tables import runs
from scheduler.config.settings import Settings

if TYPE_CHECKING:
    from scheduler.app import App  # what a command keeps is known without it

P = ParamSpec("P")
T = TypeVar("T")

EVERY = timedelta(days=1).total_seconds()
GROWN_BY = 10_000
FIRST_AFTER = 60.0  # seconds, as all below
LOOKED_EVERY = 300.0
QUIET_WITHIN = 600.0
TOO_LONG_A_LOG = 4 * LONGEST_LOG
ALERTS_STAY = timedelta(days=7)
"""However many they are: whoever judges alerts looks back a day."""

_OTHERS_SHARE = 4
_SHORTEST_REST = 0.02
_ASKED_EVERY = 1.0
logger = logging.getLogger(__name__)


def kept(settings: Settings, *, now: datetime) -> Keep:
    """Return what the limits of a configuration want kept."""
    days = settings.limits.keep_days
    return Keep(settings.limits.keep_runs, now - timedelta(days=days) if days is not None else None)


def kept_of_job(settings: Settings, job: str, *, now: datetime) -> Keep:
    """Return what is kept of a job: all runs of today, where their tokens are counted."""
    keep, known = kept(settings, now=now), settings.jobs.get(job)
    if known is None or known.job.max_tokens_per_day is None:
        return keep
    return replace(keep, all_since=day_begins(now, known.timezone))


@dataclass(slots=True)
class Removed:
    """How many rows a round has removed.

    `outside` are attempts that belong to no run, `dead_letters` failed deliveries of the runs, `instances`
    processes that have ended.
    """

    runs: int = 0
    dead_letters: int = 0
    jobs: int = 0
    outside: int = 0
    notices: int = 0
    instances: int = 0

    def __bool__(self) -> bool:
        return bool(self.runs or self.outside or self.notices or self.instances)


class Retention:
    """Prunes a minute after a start, then once a day, or when the ledger has grown by 10,000 rows since.

    It looks every five minutes, and then waits for a moment in which nothing runs, ten minutes at most: a
    daemon that is never at rest prunes a quarter of an hour late at the latest. Between two portions the
    writer is free for four times as long as the portion took. Trouble with the database ends a round, and is
    told.
    """

    def __init__(
        self, app: "App", *, first_after: float = FIRST_AFTER, looked_every: float = LOOKED_EVERY
    ) -> None:
        self._app = app
        self._first_after, self._looked_every = first_after, looked_every
        self._pruned_at: float | None = None
        self._newest = 0
        self._told_of_log = False

    def take(self, app: "App") -> None:
        """Keep what this configuration wants kept from now on."""
        if app.settings.limits != self._app.settings.limits:
            self._pruned_at = None
        self._app = app

    async def watch(self) -> None:
        """Do what is due, until cancelled."""
        await asyncio.sleep(self._first_after)
        while True:
            try:
                await self._look()
            except (DBAPIError, Unavailable) as exc:
                logger.warning("nothing more is removed now: %s", getattr(exc, "orig", None) or exc)
            await asyncio.sleep(self._looked_every)

    async def _look(self) -> None:
        newest = await self._app.store.read(_newest)
        if self._is_due(newest):
            await self._quiet()
            limits = self._app.settings.limits
            self._tell(await self.prune())
            if self._app.settings.limits == limits:  # else some jobs were pruned by those of before
                self._pruned_at, self._newest = clock.monotonic(), newest
        self._watch_log()

    def _is_due(self, newest: int) -> bool:
        if self._pruned_at is None:
            return True
        return clock.monotonic() - self._pruned_at >= EVERY or newest - self._newest >= GROWN_BY

    def _tell(self, removed: Removed) -> None:
        said = (
            "removed %d runs of %d jobs, %d attempts outside runs, %d notices and %d processes that need not "
            "be kept; dead letters that went with their runs: %d"
        )
        level = logging.INFO if removed else logging.DEBUG
        others = (removed.outside, removed.notices, removed.instances, removed.dead_letters)
        logger.log(level, said, removed.runs, removed.jobs, *others)

    async def _quiet(self) -> None:
        """Wait until nothing runs; for a daemon that is never at rest, ten minutes."""
        give_up = clock.monotonic() + QUIET_WITHIN
        while clock.monotonic() < give_up and await self._app.store.read(_anything_runs):  # noqa: ASYNC110
            await asyncio.sleep(_ASKED_EVERY)

    async def prune(self) -> Removed:
        """Remove what need not be kept, now; raises DBAPIError, Unavailable."""
        removed, store = Removed(), self._app.store
        for job in await store.read(prune.names):
            keep = kept_of_job(self._app.settings, job, now=clock.utcnow())
            if await store.read(prune.count, job, keep):
                removed.jobs += 1
                while (portion := await self._portion(prune.prune, job, keep)).runs:
                    removed.runs += portion.runs
                    removed.dead_letters += portion.dead_letters
        keep = kept(self._app.settings, now=clock.utcnow())
        while number := await self._portion(prune.prune_attempts, keep):
            removed.outside += number
        recent = replace(keep, all_since=clock.utcnow() - ALERTS_STAY)
        while number := await self._portion(prune.prune_alerts, recent):
            removed.notices += number
        ended = await store.read(prune.ended_instances, keep, now=clock.utcnow())
        while ended:
            number = await self._portion(prune.prune_instances, ended)
            removed.instances, ended = removed.instances + number, ended[number:]
        return removed

    async def _portion(
        self, verb: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run one portion, and leave the writer to others for a while."""
        began = clock.monotonic()
        result = await self._app.store.write(verb, *args, **kwargs)
        await asyncio.sleep(max(_SHORTEST_REST, _OTHERS_SHARE * (clock.monotonic() - began)))
        return result

    def _watch_log(self) -> None:
        """Say so once when the write-ahead log cannot begin anew, and grows on."""
        path = sqlite_path(self._app.settings.database)
        size = soundness.log_size(path) if path is not None else 0
        if size > TOO_LONG_A_LOG and not self._told_of_log:
            logger.warning(
                "the write-ahead log has %d MB: something has read the database for long, and goes on",
                size // 1_000_000,
            )
        self._told_of_log = size > TOO_LONG_A_LOG


def _newest(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(runs.c.id), 0))).scalar_one())


def _anything_runs(connection: Connection) -> bool:
    running = select(runs.c.id).where(runs.c.finished_at.is_(None), runs.c.state == RunState.RUNNING)
    return connection.execute(running.limit(1)).first() is not None
