"""The daemon: plans, claims, runs, serves, and stops in order."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.errors import FenceLost
from jobs.events import Events, RunClaimed, RunDecided, WriteFailed
from jobs.providers.early_refresh import EarlyRefresh
from jobs.run import ClaimedRun, Reason, RunState
from jobs.runner import run_job
from jobs.secret import Redactor
from jobs.store import instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.engine import kind_of
from jobs.store.holds import HeldJob
from jobs.store.jobs import JobState
from jobs.store.runs import NewRun
from scheduler import __version__
from scheduler.app import App, open_app
from scheduler.clock_work import ClockWork
from scheduler.config.settings import CatchUp, ScheduledJob, Settings
from scheduler.holds import Holds, probes_of
from scheduler.http_server import HttpServer
from scheduler.logs import hear
from scheduler.metrics import Metrics
from scheduler.planner import Plan, Policy, plan
from scheduler.sd_notify import Notifier
from scheduler.state import keyless_providers, read_snapshot
from scheduler.worker_pool import WorkerPool

SUPERVISE_EVERY = 1.0
LOOP_STALL = 0.25
WRITER_STALE_AFTER = 30.0
JOBS_A_BREATH = 500
logger = logging.getLogger(__name__)


class Daemon:
    """One running daemon. `run()` returns when it has stopped."""

    def __init__(self, app: App, notifier: Notifier, metrics: Metrics) -> None:
        self._app, self._notifier, self._metrics = app, notifier, metrics
        settings = app.settings
        self._jobs = {name: job for name, job in settings.jobs.items() if job.enabled and job.schedule}
        self._states: dict[str, JobState] = {}
        self._watched_since = clock.utcnow()
        self._clock_work = ClockWork(self._look)
        self._holds = Holds(app, due=self._jobs)
        self._early_refresh = EarlyRefresh(app.services, settings.targets())
        self._workers = WorkerPool(self._work, limit=settings.limits.max_concurrent_runs)
        self._stopping = asyncio.Event()
        self._planned = False
        self._http = self._make_http()

    async def run(self) -> None:
        """Start, serve until `stop()`, drain."""
        self._watch_signals()
        if self._http is not None:
            await self._http.start()
        supervisor = asyncio.create_task(self._supervise(), name="supervisor")
        early = asyncio.create_task(self._early_refresh.watch(), name="early refresh")
        early.add_done_callback(_tell_if_broken)
        try:
            await self._begin()
            asked = asyncio.create_task(self._stopping.wait(), name="stop")
            await asyncio.wait((asked, supervisor), return_when=asyncio.FIRST_COMPLETED)
            if supervisor.done():
                supervisor.result()  # a daemon that nobody watches over does not go on
        finally:
            early.cancel()
            await self._end()
            supervisor.cancel()

    def stop(self) -> None:
        """Begin to drain; a second call cancels what still runs."""
        if self._stopping.is_set():
            logger.warning("stopping now: running work is cancelled")
            self._workers.cancel_all()
        self._stopping.set()

    async def _begin(self) -> None:
        store, now = self._app.store, clock.utcnow()
        keys = {name: _key_of(job) for name, job in self._app.settings.jobs.items()}
        self._states = await store.write(job_verbs.see, keys, now=now)
        left = await store.write(runs.recover, instance_id=self._app.workshop.instance_id, now=now)
        self._workers.recover(left)
        keyless = await store.read(keyless_providers, self._app.settings, self._app.services.vault, now=now)
        for why in keyless:
            logger.warning("%s", why)
        self._watched_since = clock.utcnow()
        self._clock_work.start(await self._look(list(self._jobs)))
        self._planned = True
        self._notifier.ready(f"{len(self._jobs)} jobs scheduled")
        where = f", figures on port {self._http.port}" if self._http else ""
        logger.info("ready: %d jobs scheduled%s", len(self._jobs), where)

    async def _end(self) -> None:
        self._notifier.stopping()
        self._clock_work.stop()
        cancelled = await self._workers.drain(self._app.settings.limits.drain_timeout)
        if cancelled:
            logger.warning("%d runs did not end within the drain time and were cancelled", cancelled)
        if self._http is not None:
            await self._http.stop()
        logger.info("stopped")

    async def _look(self, names: list[str]) -> Mapping[str, datetime | None]:
        """Plan the named jobs, claim what is due in one transaction, hand it to the workers."""
        now = clock.utcnow()
        held = await self._holds.judged()
        probing = probes_of(held.standing, names, now=now)
        plans: dict[str, Plan] = {}
        for number, name in enumerate(names):
            if number % JOBS_A_BREATH == JOBS_A_BREATH - 1:
                await asyncio.sleep(0)
            plans[name] = self._plan(name, held=name in held.standing, probes=name in probing)
        new = [run for name, made in plans.items() for run in _rows_of(name, made)]
        if new:
            await self._claim(new, plans, probing)
        begun = {run.job for run in new if run.state is RunState.QUEUED}
        over = [held.over[name] for name in names if name in held.over]
        self._workers.submit(await self._holds.release(over, busy=begun))
        for name, made in plans.items():
            if made.decisions:
                self._states[name] = _with_cursor(self._states[name], made.cursor)
        return {name: made.next_instant for name, made in plans.items()}

    def _plan(self, name: str, *, held: bool, probes: bool) -> Plan:
        job, state = self._jobs[name], self._states[name]
        assert job.schedule is not None
        return plan(
            job.schedule.anchored(state.first_seen_at),
            cursor=state.cursor or state.first_seen_at,
            now=clock.utcnow(),
            watched_since=self._watched_since,
            policy=Policy(
                job.misfire_grace_time,
                job.catch_up is CatchUp.LATEST,
                paused=state.paused_at is not None,
                held=held,
                probes=probes,
            ),
        )

    async def _claim(
        self, new: list[NewRun], plans: Mapping[str, Plan], probing: Mapping[str, HeldJob]
    ) -> None:
        now = clock.utcnow()
        claimed = await self._app.store.write(
            runs.claim,
            new,
            cursors=[(name, made.cursor) for name, made in plans.items() if made.decisions],
            instance_id=self._app.workshop.instance_id,
            now=now,
        )
        probes = [
            run for run in claimed.ours if run.job in probing and await self._holds.probe(probing[run.job])
        ]
        self._workers.submit([replace(run, probe=run in probes) for run in claimed.ours])
        for run in claimed.ours:
            self._app.events.emit(RunClaimed(run, (now - run.scheduled_for).total_seconds()))
        for row in claimed.final:
            self._app.events.emit(
                RunDecided(row.job, row.scheduled_for, row.state, row.reason or "", row.span_count)
            )

    async def _work(self, run: ClaimedRun) -> None:
        job = self._app.settings.jobs.get(run.job)
        if job is None:
            await self._app.store.write(runs.cancel_queued, run.id, Reason.OPERATOR, now=clock.utcnow())
            return
        try:
            rest = partial(self._workers.resting, run.id)
            await run_job(run, job.job, self._app.workshop, zone=job.timezone, rest=rest)
        except FenceLost as exc:
            logger.warning("%s", exc)

    async def _supervise(self) -> None:
        """Keep the scheduling loop alive, beat for other processes, and notice a loop that stalls."""
        instance = self._app.workshop.instance_id
        beat_at = clock.monotonic()
        while True:
            before = clock.monotonic()
            await asyncio.sleep(SUPERVISE_EVERY)
            stall = clock.monotonic() - before - SUPERVISE_EVERY
            if stall > LOOP_STALL:
                logger.warning("the loop stood still for %.0f ms", stall * 1000)
            if not self._planned or self._stopping.is_set():
                continue
            self._clock_work.mend()
            if clock.monotonic() - beat_at >= instances.HEARTBEAT_EVERY.total_seconds():
                beat_at = clock.monotonic()
                await self._beat(instance)

    async def _beat(self, instance: int) -> None:
        try:
            await self._app.store.write(instances.beat, instance, now=clock.utcnow())
            await self._let_go()
            left = await self._app.store.write(runs.recover, instance_id=instance, now=clock.utcnow())
        except DBAPIError as exc:
            self._app.events.emit(WriteFailed(kind_of(exc), type(exc).__name__))
            logger.error("the heartbeat could not be written: %s", exc.orig)
            return
        self._metrics.observe_write(self._app.store.last_group_seconds)
        self._workers.recover(left)
        if all(self._healthy().values()):
            self._notifier.watchdog()

    async def _let_go(self) -> None:
        """Look at the jobs whose hold is over; one that is not scheduled is just held no more."""
        over = (await self._holds.judged()).over
        self._clock_work.hasten(name for name in over if name in self._jobs)
        await self._holds.release(each for name, each in over.items() if name not in self._jobs)

    def _healthy(self) -> dict[str, bool]:
        writer_age = clock.monotonic() - self._app.store.fresh_at
        return {"scheduling": self._clock_work.fresh, "writer": writer_age < WRITER_STALE_AFTER}

    def _ready(self) -> dict[str, bool]:
        return {"planned": self._planned, "not_draining": not self._stopping.is_set()}

    def _make_http(self) -> HttpServer | None:
        listen = self._app.settings.listen
        if listen is None:
            return None
        return HttpServer(
            listen,
            registry=self._metrics.registry,
            refresh=self._refresh_figures,
            healthy=self._healthy,
            ready=self._ready,
        )

    async def _refresh_figures(self) -> None:
        app = self._app
        snapshot = await app.store.read(
            read_snapshot,
            app.settings,
            app.services.vault,
            next_runs=self._clock_work.next_instants(),
            runs_in_progress=self._workers.health().running,
            planner_beat_at=self._clock_work.beat_at,
            now=clock.utcnow(),
        )
        self._metrics.take(snapshot)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        no_reload = "this version does not reload: restart it to apply a new configuration"
        loop.add_signal_handler(signal.SIGHUP, logger.warning, no_reload)


def _nobody(_daemon: Daemon, _events: Events) -> None:
    """Attend no daemon."""


async def run_daemon(
    settings: Settings,
    *,
    environ: Mapping[str, str],
    redactor: Redactor | None = None,
    attend: Callable[[Daemon, Events], None] = _nobody,
) -> None:
    """Open the parts, run a daemon to its end, close the parts. The database must be migrated already.

    `attend` is given the daemon before it starts, to listen to it or to stop it.
    """
    events = Events(hear)
    used = {target.provider for job in settings.jobs.values() for target in job.job.targets}
    metrics = Metrics(version=__version__, job_names=settings.jobs, providers=sorted(used))
    events.listen(metrics.hear)
    async with open_app(
        settings, environ=environ, kind="daemon", events=events, redactor=redactor or Redactor()
    ) as app:
        daemon = Daemon(app, Notifier(environ), metrics)
        attend(daemon, events)
        await daemon.run()


def _rows_of(name: str, made: Plan) -> list[NewRun]:
    return [
        NewRun(
            name,
            decision.instant,
            decision.trigger,
            decision.state,
            str(decision.reason) if decision.reason else None,
            decision.first,
            decision.count,
        )
        for decision in made.decisions
    ]


def _tell_if_broken(early: "asyncio.Task[None]") -> None:
    """Say that logins are refreshed by their runs only from here on, and why."""
    if not early.cancelled() and early.exception() is not None:
        logger.error("refreshing logins early has ended: %r; runs refresh their own", early.exception())


def _key_of(job: ScheduledJob) -> str:
    """Return what a job's debts hang on: when it changes, nothing is owed from before."""
    return f"{job.schedule.text} {job.timezone.key}" if job.enabled and job.schedule else job_verbs.OFF


def _with_cursor(state: JobState, cursor: datetime) -> JobState:
    return replace(state, cursor=cursor)
