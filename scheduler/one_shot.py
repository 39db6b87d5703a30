"""One run, now, in this process: for `job run`, `ask` and `drill`. The same `run_job` as the daemon's."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

from jobs import clock
from jobs.definition import Job
from jobs.errors import Busy
from jobs.events import Events, Listener
from jobs.providers.call import Drill
from jobs.run import Outcome, Reason, Trigger
from jobs.runner import run_job
from jobs.secret import Redactor
from jobs.store import runs
from jobs.store.holds import HeldJob
from scheduler.app import App, ensure_database, keep_beating, open_app
from scheduler.config.settings import Settings
from scheduler.holds import Holds


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was asked for by hand, and how it ended."""

    run_id: int
    outcome: Outcome


def run_now(
    settings: Settings,
    job: Job,
    *,
    trigger: Trigger,
    zone: ZoneInfo,
    environ: Mapping[str, str],
    redactor: Redactor,
    values: Mapping[str, Any] | None = None,
    force: bool = False,
    drill: Drill | None = None,
    hear: Listener | None = None,
) -> Ended:
    """Run a job to its end and return it. Ctrl-C cancels the run, and it is recorded so.

    Raises Busy when the job is held, unless with `force`: then the run asks what is closed for a time. In a
    `drill` the providers that it names fail before a request leaves, and nothing is marked. `hear` is told
    what happens.
    """
    ensure_database(settings)

    async def main() -> Ended:
        events = Events(*([hear] if hear else []))
        async with open_app(
            settings, environ=environ, kind="command", redactor=redactor, events=events
        ) as app:
            return await _cancellable(app, job, trigger, zone, values, force, drill)

    return asyncio.run(main())


async def _hold_of(app: App, job: Job) -> HeldJob | None:
    """Return the hold of a job, if it stands; of a job that never falls due one that is over is ended."""
    due = {name for name, each in app.settings.jobs.items() if each.schedule is not None}
    holds = Holds(app, due=due)
    judged = await holds.judged()
    if job.name in judged.over and job.name not in due:
        await holds.release([judged.over[job.name]])
    return judged.standing.get(job.name)


async def _cancellable(
    app: App,
    job: Job,
    trigger: Trigger,
    zone: ZoneInfo,
    values: Mapping[str, Any] | None,
    force: bool,
    drill: Drill | None,
) -> Ended:
    held = await _hold_of(app, job) if trigger is Trigger.MANUAL else None
    if held is not None and not force:
        raise Busy(
            f"{job.name} is held until {held.held_until:%Y-%m-%d %H:%M:%S} UTC: {held.hold_reason}; "
            "`promptd auth reset` what can be used again, or ask nevertheless with --force"
        )
    run = await app.store.write(
        runs.add,
        job=job.name,
        trigger=trigger,
        instance_id=app.workshop.instance_id,
        now=clock.utcnow(),
        values=values,
    )
    beating = asyncio.create_task(keep_beating(app))
    run = replace(run, probe=held is not None)
    task = asyncio.create_task(run_job(run, job, app.workshop, zone=zone, drill=drill))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel, Reason.OPERATOR)
    try:
        return Ended(run.id, await task)
    except asyncio.CancelledError:
        return Ended(run.id, Outcome.cancelled(Reason.OPERATOR))
    finally:
        beating.cancel()
