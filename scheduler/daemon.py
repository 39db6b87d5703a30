"""The daemon: plans, claims, runs, serves, reloads, and stops in order."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from jobs import clock
from jobs.delivery.outbox import Ways
from jobs.errors import FenceLost, NotYet
from jobs.events import Events, RunClaimed, RunDecided
from jobs.providers.early_refresh import EarlyRefresh
from jobs.run import ClaimedRun, Reason
from jobs.runner import reason_of, run_job
from jobs.secret import Redactor
from jobs.store import jobs as job_verbs
from jobs.store import runs
from jobs.store.last_runs import Recollection
from jobs.store.runs import Ended
from jobs.store.store import Store
from scheduler import __version__
from scheduler.app import App, open_app, reconfigured
from scheduler.clock_work import ClockWork
from scheduler.config.settings import Settings
from scheduler.control import Control
from scheduler.figures import Snapshot
from scheduler.http_server import HttpServer
from scheduler.later import Later
from scheduler.logs import hear
from scheduler.metrics import Metrics
from scheduler.outbound import Outbound, ways_of
from scheduler.planning import Planning, key_of
from scheduler.reload import Reloaded, applicable, difference, read_again
from scheduler.reloads import Reloads
from scheduler.sd_notify import Notifier
from scheduler.state import StateForScrapes, keyless_providers, known_of, read_snapshot
from scheduler.steering import Steering
from scheduler.upkeep import Upkeep
from scheduler.worker_pool import WorkerPool

logger = logging.getLogger(__name__)


class Daemon:
    """One running daemon. `run()` returns when it has stopped."""

    def __init__(self, app: App, notifier: Notifier, metrics: Metrics, *, environ: Mapping[str, str]) -> None:
        self.app, self.environ = app, environ
        self._notifier, self._metrics = notifier, metrics
        self.workers = WorkerPool(self._work, limit=app.settings.limits.max_concurrent_runs)
        self.later = Later(self.workers.submit)
        self._planning = Planning(app, self.workers, self._give_way, watched_since=clock.utcnow())
        self._clock_work = ClockWork(self._planning.look)
        self._asked_to_stop = asyncio.Event()
        self._asked_again = asyncio.Event()
        self._reloads = Reloads(
            self._reload,
            notifier=notifier,
            metrics=metrics,
            stopping=self._asked_to_stop.is_set,
            standing=self._standing,
        )
        self._upkeep = Upkeep(
            app,
            self._planning,
            self._clock_work,
            self.workers,
            self.later,
            metrics=metrics,
            alive=notifier.watchdog,
            reload=self._reloads.begin,
            go_on=self._go_on_from,
            say=self._say,
        )
        self._early: asyncio.Task[None] | None = None
        self._outbound = Outbound(app)
        self._recollection = Recollection()
        self._planned = False
        self._http = self._make_http()
        self._control = Control(app.settings.state_dir, verbs=Steering(self), environ=environ)

    @property
    def stopping(self) -> bool:
        """Whether it drains: nothing new is begun."""
        return self._asked_to_stop.is_set()

    async def run(self) -> None:
        """Start, serve until `stop()`, drain."""
        self._watch_signals()
        if self._http is not None:
            await self._http.start()
        upkeep = asyncio.create_task(self._upkeep.watch(lambda: self._planned), name="upkeep")
        try:
            await self._begin()
            asked = asyncio.create_task(self._asked_to_stop.wait(), name="stop")
            await asyncio.wait((asked, upkeep), return_when=asyncio.FIRST_COMPLETED)
            if upkeep.done():
                upkeep.result()  # a daemon that nobody looks after does not go on
        finally:
            await self._end()
            upkeep.cancel()

    def stop(self) -> None:
        """Begin to drain; a second call cancels what still runs."""
        if self.stopping:
            logger.warning("stopping now: running work is cancelled")
            self.workers.cancel_all()
            self._asked_again.set()
        self._asked_to_stop.set()
        self._planning.close()
        self._upkeep.drain()
        self._outbound.close()

    async def reload(self) -> Reloaded:
        """Read the configuration again and apply it job by job; one that has faults changes nothing.

        Raises Unavailable when the daemon stops.
        """
        return await self._reloads.reload()

    async def _reload(self) -> Reloaded:
        old = self.app.settings
        new, waits = applicable(old, await read_again(old.source, self.environ, now=clock.utcnow()))
        app = await reconfigured(self.app, new, self.environ)
        ways = await asyncio.to_thread(ways_of, app)
        async with self._planning.lock:
            await self._planning.look_unlocked(self._planning.names)  # what is due is decided as it was
            await self._take(app, ways)
        if not self.stopping:  # all are looked at now, and again where that fails
            self._clock_work.start(dict.fromkeys(self._planning.names, clock.utcnow()))
        for warning in new.warnings:
            logger.warning("%s", warning)
        return difference(old, new, waits)

    async def _take(self, app: App, ways: Ways) -> None:
        """Work with this configuration from now on."""
        timetables = {name: key_of(job) for name, job in app.settings.jobs.items()}
        states = await app.store.write(job_verbs.see, timetables, now=clock.utcnow())
        self._planning.take(app, states)
        self.app = app
        self._upkeep.take(app)
        self._outbound.take(app, ways)
        self.workers.limit(app.settings.limits.max_concurrent_runs)
        self._metrics.know(known_of(app.settings))
        logging.getLogger().setLevel(app.settings.log_level.upper())
        self._keep_logins_fresh()

    def _keep_logins_fresh(self) -> None:
        if self._early is not None:
            self._early.cancel()
        watch = EarlyRefresh(self.app.services, self.app.settings.targets()).watch()
        self._early = asyncio.create_task(watch, name="early refresh")
        self._early.add_done_callback(_tell_if_broken)

    async def _begin(self) -> None:
        store = self.app.store
        self._planning.watch_from(clock.utcnow())
        await self._take(self.app, await asyncio.to_thread(ways_of, self.app))
        await self._upkeep.recover()
        self._outbound.start()
        keyless = await store.read(
            keyless_providers, self.app.settings, self.app.services.vault, now=clock.utcnow()
        )
        for why in keyless:
            logger.warning("%s", why)
        self._clock_work.start(await self._planning.look(self._planning.names))
        await self._control.start()
        self._planned = True
        self._notifier.ready(self._standing())
        where = f", figures on port {self._http.port}" if self._http else ""
        logger.info("ready: %s%s", self._standing(), where)

    async def _end(self) -> None:
        self._notifier.stopping()
        if self._early is not None:
            self._early.cancel()
        self._reloads.cancel()
        await self._clock_work.quit()
        until = clock.monotonic() + self.app.settings.limits.drain_timeout.total_seconds()
        cancelled = await self.workers.drain(self.app.settings.limits.drain_timeout)
        if cancelled:
            logger.warning("%d runs did not end within the drain time and were cancelled", cancelled)
        await self._drain_the_rest(max(0.0, until - clock.monotonic()))
        await self._outbound.stop()
        await self._control.stop()
        if self._http is not None:
            await self._http.stop()
        logger.info("stopped")

    async def _drain_the_rest(self, seconds: float) -> None:
        """Let commands end that are carried out here, and what is being sent arrive.

        Unless somebody wants the end now.
        """
        ending = asyncio.gather(self._control.drain(seconds), self._outbound.drain(seconds))
        asked_again = asyncio.create_task(self._asked_again.wait(), name="stop now")
        await asyncio.wait((ending, asked_again), return_when=asyncio.FIRST_COMPLETED)
        for each in (ending, asked_again):
            each.cancel()
        for left in await asyncio.gather(ending, asked_again, return_exceptions=True):
            if isinstance(left, Exception):
                logger.error("something did not end as it should: %r", left)

    async def _work(self, run: ClaimedRun) -> None:
        job = self.app.settings.jobs.get(run.job)
        if job is None:
            await self.app.store.write(runs.cancel_queued, run.id, Reason.OPERATOR, now=clock.utcnow())
            return
        rest = partial(self.workers.resting, run.id)
        try:
            done = await run_job(
                run,
                job.job,
                self.app.workshop,
                zone=job.timezone,
                rest=rest,
                consequences=lambda: self._upkeep.aftermath.of(job.job),
            )
        except NotYet:
            self.later.park(run)
            return
        except asyncio.CancelledError as exc:
            await self._cancelled_waiting(run, exc)
            raise
        except FenceLost as exc:
            logger.warning("%s", exc)
        else:
            if done.again is not None:
                self.later.put([done.again])
            self._go_on_from(done.ended)
        finally:
            self._outbound.worked(run.job)
        self.later.ended(run.job)

    async def _cancelled_waiting(self, run: ClaimedRun, exc: asyncio.CancelledError) -> None:
        """Write down the end of a run that was cancelled before it could begin."""
        reason = reason_of(exc)
        if reason is not Reason.SHUTDOWN:
            await self.app.store.insist(runs.cancel_queued, run.id, reason, now=clock.utcnow())
        self.later.ended(run.job)

    def _go_on_from(self, ended: Ended) -> None:
        """Take up what a run's end has brought about."""
        self._give_way(ended.replaced)
        now = clock.utcnow()
        for run in ended.followers:
            self.app.events.emit(RunClaimed(run, (now - run.scheduled_for).total_seconds()))
        for row in ended.decided:
            self.app.events.emit(
                RunDecided(row.job, row.scheduled_for, row.state, row.reason or "", row.span_count)
            )
        self.later.put(ended.followers)

    def _give_way(self, run_ids: Iterable[int]) -> None:
        """End runs that newer ones replace; those of other processes are asked through the ledger."""
        for run_id in run_ids:
            if not self.workers.cancel(run_id, Reason.REPLACED):
                self.forget(run_id)

    def forget(self, run_id: int) -> None:
        """Drop a run that waited here and has ended."""
        self.workers.forget(run_id)
        self.later.forget(run_id)

    async def look_at(self, names: Sequence[str]) -> None:
        """Look at these jobs now: something about them has changed."""
        self._outbound.wake()
        await self._planning.refresh(names)
        self._clock_work.hasten(name for name in names if name in self._planning.names)

    def _ready(self) -> dict[str, bool]:
        able = {"writing": self.app.store.refused is None, "not_draining": not self.stopping}
        return {"planned": self._planned, **able}

    def _say(self, what: str) -> None:
        """Tell the service manager what is special, or how things stand."""
        self._notifier.status(what or self._standing())

    def _standing(self) -> str:
        return f"{len(self._planning.names)} jobs scheduled"

    def _make_http(self) -> HttpServer | None:
        listen = self.app.settings.listen
        if listen is None:
            return None
        return HttpServer(
            listen,
            registry=self._metrics.registry,
            refresh=StateForScrapes(self._metrics, self._read_state).refresh,
            healthy=self._upkeep.healthy,
            ready=self._ready,
        )

    async def _read_state(self) -> Snapshot:
        app = self.app
        return await app.store.read(
            read_snapshot,
            app.settings,
            app.services.vault,
            recollection=self._recollection,
            next_runs=self._clock_work.next_instants(),
            planner_beat_at=self._clock_work.beat_at,
            now=clock.utcnow(),
        )

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reloads.begin)


async def run_daemon(
    settings: Settings,
    *,
    environ: Mapping[str, str],
    redactor: Redactor | None = None,
    attend: Callable[[Daemon, Events], None] | None = None,
    make_store: Callable[..., Store] = Store,
) -> None:
    """Open the parts, run a daemon to its end, close the parts. The database must be migrated already.

    `attend` is given the daemon before it starts, to listen to it or stop it; `make_store`: see `open_app`.
    """
    events = Events(hear)
    metrics = Metrics(version=__version__, known=known_of(settings))
    events.listen(metrics.hear)
    async with open_app(
        settings,
        environ=environ,
        kind="daemon",
        events=events,
        redactor=redactor or Redactor(),
        make_store=make_store,
    ) as app:
        daemon = Daemon(app, Notifier(environ), metrics, environ=environ)
        if attend is not None:
            attend(daemon, events)
        await daemon.run()


def _tell_if_broken(early: "asyncio.Task[None]") -> None:
    """Say that logins are refreshed by their runs only from here on, and why."""
    if not early.cancelled() and early.exception() is not None:
        logger.error("refreshing logins early has ended: %r; runs refresh their own", early.exception())
