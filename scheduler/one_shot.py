"""One run, now, in this process: for `job run`, `run retry`, `ask` and `drill`. The daemon's `run_job`."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs import clock
from jobs.delivery.heartbeat import Heartbeats
from jobs.delivery.outbox import MARGIN, Outbox, Ways
from jobs.errors import FenceLost
from jobs.events import Events, Listener, RunClaimed
from jobs.providers.call import Drill
from jobs.run import ClaimedRun, Outcome, Reason, RunState, Trigger
from jobs.runner import run_job
from jobs.secret import Redactor
from jobs.store import instances, ledger, runs
from scheduler.app import App, ensure_database, open_app
from scheduler.by_hand import add_by_hand
from scheduler.config.settings import ScheduledJob, Settings
from scheduler.job_bounds import Aftermath

LAST_PINGS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_WAIT = 15.0  # seconds: a step of the clock is noticed within one wait


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was asked for by hand, and how it ended; `interrupted`: by a signal to this process."""

    run_id: int
    outcome: Outcome
    interrupted: bool = False


def run_now(
    settings: Settings,
    job: ScheduledJob,
    *,
    trigger: Trigger,
    environ: Mapping[str, str],
    redactor: Redactor,
    values: Mapping[str, Any] | None = None,
    retry_of: int | None = None,
    force: bool = False,
    drill: Drill | None = None,
    hear: Listener | None = None,
    carried: bool = False,
) -> Ended:
    """Run a job to its end, all its tries, and return it. Ctrl-C cancels the run, and it is recorded so.

    Raises what `add_by_hand` does. In a `drill` the providers that it names fail before a request leaves, and
    nothing is marked. `hear` is told what happens. What the run has to tell is sent from here, unless it is
    `carried` out for a daemon, which does that: another one may not know where to.
    """
    ensure_database(settings)

    async def main() -> Ended:
        events = Events(*([hear] if hear else []))
        async with open_app(
            settings, environ=environ, kind="command", redactor=redactor, events=events
        ) as app:
            run = await add_by_hand(app, job, trigger=trigger, values=values, retry_of=retry_of, force=force)
            async with _telling(app, job):
                ended = await _cancellable(app, job, run, drill)
            if job.job.deliver and not carried:
                await _interruptible(_sent(app, run.id))
            return ended

    return asyncio.run(main())


@asynccontextmanager
async def _telling(app: App, job: ScheduledJob) -> AsyncIterator[None]:
    """Send the job's heartbeats while the block runs, and give the last ones a moment."""
    urls = {job.name: job.job.heartbeat} if job.job.heartbeat is not None else {}
    heartbeats = Heartbeats(urls, secrets=app.tools.secrets, outgoing=app.tools.outgoing)
    app.events.listen(heartbeats.hear)
    try:
        yield
    finally:
        await heartbeats.stop(LAST_PINGS)


async def _sent(app: App, run_id: int) -> None:
    """Send once what a run has put into the outbox; where that fails, or takes too long, a daemon goes on."""
    settings = app.settings
    zones = {name: job.timezone for name, job in settings.jobs.items()}
    ways = Ways(settings.delivery, zones, app.tools, zone=settings.timezone)
    outbox = Outbox(app.store, app.events, ways, instance_id=app.workshop.instance_id)
    longest = max((each.timeout for each in settings.delivery.values()), default=MARGIN) + MARGIN
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest.total_seconds()):
                await outbox.send_of(run_id)
    finally:
        await outbox.stop()


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Do something that a signal ends; what it leaves is somebody else's."""
    task = asyncio.create_task(work)
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def _cancellable(app: App, job: ScheduledJob, run: ClaimedRun, drill: Drill | None) -> Ended:
    task = asyncio.create_task(_to_its_end(app, job, run, drill))
    watching = asyncio.create_task(_watch(app, run, task))
    loop, heard = asyncio.get_running_loop(), asyncio.Event()

    def interrupt() -> None:
        heard.set()
        task.cancel(Reason.OPERATOR)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return Ended(run.id, await task, heard.is_set())
    except asyncio.CancelledError:
        return Ended(run.id, Outcome.cancelled(Reason.OPERATOR), heard.is_set())
    finally:
        watching.cancel()


async def _to_its_end(app: App, job: ScheduledJob, run: ClaimedRun, drill: Drill | None) -> Outcome:
    """Do one try after the other. Runs of jobs that come after this one stay queued, for a daemon."""
    aftermath = Aftermath(app.settings)
    while True:
        done = await run_job(
            run,
            job.job,
            app.workshop,
            zone=job.timezone,
            drill=drill,
            consequences=partial(aftermath.of, job.job),
        )
        for follower in done.ended.followers:
            app.events.emit(RunClaimed(follower, 0.0))
        if done.again is None:
            return done.outcome
        run = done.again
        ended = await _waited_for_next_try(app, run)
        if ended is not None:
            return ended


async def _waited_for_next_try(app: App, run: ClaimedRun) -> Outcome | None:
    """Wait until a run's next try may begin; return its end where somebody cancels it meanwhile."""
    try:
        while (left := _left(run)) > 0:  # noqa: ASYNC110 - time is waited for, and may be stepped
            await asyncio.sleep(min(left, LONGEST_WAIT))
    except asyncio.CancelledError:
        await app.store.write(runs.cancel_queued, run.id, Reason.OPERATOR, now=clock.utcnow())
        raise
    row = await app.store.read(ledger.run, run.id)
    if row is None or row["state"] == RunState.QUEUED:
        return None
    if row["state"] == RunState.CANCELLED:
        return Outcome.cancelled(Reason(row["reason"]))
    raise FenceLost(f"run {run.id} is {row['state']}: another process has taken it over")


def _left(run: ClaimedRun) -> float:
    """Return how many seconds a run's next try has to wait."""
    return (run.not_before - clock.utcnow()).total_seconds() if run.not_before else 0.0


async def _watch(app: App, run: ClaimedRun, task: "asyncio.Task[Outcome]") -> None:
    """Say every few seconds that this process still works, and end its run when somebody asks for that."""
    instance = app.workshop.instance_id
    while True:
        await asyncio.sleep(instances.HEARTBEAT_EVERY.total_seconds())
        await app.store.insist(instances.beat, instance, now=clock.utcnow())
        unwanted = await app.store.insist_on_reading(runs.to_be_cancelled, instance)
        if run.id in unwanted:
            task.cancel(unwanted[run.id])
