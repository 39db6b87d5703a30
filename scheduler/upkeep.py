"""What a daemon does every second and every beat: recovers, frees, notices stalls and clock steps."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext

from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.events import JobPaused, RunRecovered, WriteFailed
from jobs.silence import is_silent
from jobs.store import instances, runs
from jobs.store.engine import kind_of
from jobs.store.recovery import NO_VERDICTS, OnGone, answered, recover
from jobs.store.revision import OtherRevision
from jobs.store.runs import Ended
from jobs.workshop import Work
from scheduler.app import App
from scheduler.clock_steps import zone_changed
from scheduler.clock_work import ClockWork
from scheduler.job_bounds import Aftermath
from scheduler.later import Later
from scheduler.metrics import Metrics
from scheduler.planning import Planning
from scheduler.refusals import Refusals
from scheduler.worker_pool import WorkerPool

EVERY = 1.0
BEAT_EVERY = instances.HEARTBEAT_EVERY.total_seconds()
LOOP_STALL = 0.25
WRITER_STALE_AFTER = 30.0
logger = logging.getLogger(__name__)


class Upkeep:
    """Keeps the scheduling loop alive, the ledger truthful, and others informed that this process works.

    `alive` is called at every beat of a daemon that works, or that waits for its database; `reload` begins
    one; `go_on` takes up what the end of a run has brought about; `say` tells the service manager what is
    special, in words.
    """

    def __init__(
        self,
        app: App,
        planning: Planning,
        clock_work: ClockWork,
        workers: WorkerPool,
        later: Later,
        *,
        metrics: Metrics,
        alive: Callable[[], None],
        reload: Callable[[], None],
        go_on: Callable[[Ended], None],
        say: Callable[[str], None],
    ) -> None:
        self._planning, self._clock_work = planning, clock_work
        self._workers, self._later, self._metrics = workers, later, metrics
        self._alive, self._reload, self._go_on = alive, reload, go_on
        self._refusals = Refusals(say)
        self._draining = False
        self.take(app)

    def take(self, app: App) -> None:
        """Look after the jobs of this configuration from now on."""
        self._app, self.aftermath = app, Aftermath(app.settings)

    def healthy(self) -> dict[str, bool]:
        """Say whether the scheduling loop and the writer are fresh; who drains needs no scheduling."""
        writer_age = clock.monotonic() - self._app.store.fresh_at
        scheduling = self._draining or self._clock_work.fresh
        return {"scheduling": scheduling, "writer": writer_age < WRITER_STALE_AFTER}

    def drain(self) -> None:
        """Only say that this process works, and end what is to be ended: it begins nothing any more."""
        self._draining = True

    async def watch(self, is_on: Callable[[], bool]) -> None:
        """Do what is due every second, and every heartbeat, while `is_on`; until cancelled."""
        beating: asyncio.Task[None] | None = None  # beside the ticks: a locked database holds it up for long
        beat_at = clock.monotonic()
        try:
            while True:
                before = clock.monotonic()
                await asyncio.sleep(EVERY)
                stall = clock.monotonic() - before - EVERY
                if stall > LOOP_STALL:
                    logger.warning("the loop stood still for %.0f ms", stall * 1000)
                if beating is not None and beating.done():
                    beating.result()
                    beating = None
                if not is_on():
                    continue
                self._tick(stood_still=stall > EVERY)
                if beating is None and clock.monotonic() - beat_at >= BEAT_EVERY:
                    beat_at = clock.monotonic()
                    beating = asyncio.create_task(self._beat(), name="beat")
        finally:
            if beating is not None:
                beating.cancel()

    def _tick(self, *, stood_still: bool) -> None:
        if self._draining:
            return
        if self._planning.clock_was_set():
            self._clock_work.renew()
        if not stood_still:  # its wake-up was held up like everything else, and comes now
            self._clock_work.mend()
        self._later.tick(clock.utcnow())
        self._refusals.tell(self._app.store)

    async def _beat(self) -> None:
        try:
            await self._write_beat()
        except DBAPIError as exc:
            self._app.events.emit(WriteFailed(kind_of(exc), str(exc.orig)))
        except OtherRevision:
            pass  # the store writes nothing meanwhile, and the next tick tells it
        if not self._draining and zone_changed(self._app.settings):
            logger.warning("the machine's time zone has changed: the configuration is read again")
            self._reload()
        if all(self.healthy().values()):
            self._alive()

    async def _write_beat(self) -> None:
        """Say that this process works; see what others have left, let go of, and want ended."""
        instance = self._app.workshop.instance_id
        await self._app.store.check_revision()
        await self._app.store.write(instances.beat, instance, now=clock.utcnow())
        if not self._draining:
            await self._let_go()
            await self.recover()
        wanted = await self._app.store.read(runs.to_be_cancelled, instance)
        for run_id, reason in wanted.items():
            self._workers.cancel(run_id, reason)
        if not self._draining:
            self._later.look_again()
        self._metrics.observe_write(self._app.store.last_group_seconds)

    async def recover(self) -> None:
        """Settle and take up what processes that are gone have left."""
        workshop, on_gone = self._app.workshop, self.aftermath.on_gone
        found = await self._app.store.write(
            recover,
            instance_id=workshop.instance_id,
            now=clock.utcnow(),
            on_gone=on_gone,
            silent=await self._silent(on_gone) if on_gone.quiet else NO_VERDICTS,
        )
        for left in found.ended:
            self._app.events.emit(RunRecovered(left.run, left.outcome))
            if left.ended.paused is not None:
                self._app.events.emit(JobPaused(left.run.job, left.ended.paused))
            self._go_on(left.ended)
        self._later.put(found.ours)

    async def _silent(self, on_gone: OnGone) -> dict[int, bool]:
        """Judge the answers that were written down and not judged, as their own processes would have."""
        workshop, jobs = self._app.workshop, self._app.settings.jobs
        left = await self._app.store.read(
            answered, instance_id=workshop.instance_id, now=clock.utcnow(), on_gone=on_gone
        )
        verdicts = {}
        for run, outcome in left:
            job = jobs[run.job]
            work = Work(run, job.job, workshop, job.timezone, clock.monotonic(), None, nullcontext)
            verdicts[run.id] = await is_silent(work, outcome)
        return verdicts

    async def _let_go(self) -> None:
        """Look at the jobs whose hold is over; one that is not scheduled is just held no more."""
        over, due = (await self._planning.holds.judged()).over, set(self._planning.names)
        self._clock_work.hasten(name for name in over if name in due)
        self._clock_work.hasten(await self._planning.refresh(self._planning.asleep()))
        await self._planning.holds.release(each for name, each in over.items() if name not in due)
