"""One run, now, in this process: for `job run` and `ask`. The same `run_job` as the daemon's."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from jobs import clock
from jobs.definition import Job
from jobs.run import Outcome, Reason, Trigger
from jobs.runner import run_job
from jobs.secret import Redactor
from jobs.store import runs
from scheduler.app import App, ensure_database, keep_beating, open_app
from scheduler.config.settings import Settings


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
) -> Ended:
    """Run a job to its end and return it. Ctrl-C cancels the run, and it is recorded so."""
    ensure_database(settings)

    async def main() -> Ended:
        async with open_app(settings, environ=environ, kind="command", redactor=redactor) as app:
            return await _cancellable(app, job, trigger, zone, values)

    return asyncio.run(main())


async def _cancellable(
    app: App, job: Job, trigger: Trigger, zone: ZoneInfo, values: Mapping[str, Any] | None
) -> Ended:
    run = await app.store.write(
        runs.add,
        job=job.name,
        trigger=trigger,
        instance_id=app.workshop.instance_id,
        now=clock.utcnow(),
        values=values,
    )
    beating = asyncio.create_task(keep_beating(app))
    task = asyncio.create_task(run_job(run, job, app.workshop, zone=zone))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel, Reason.OPERATOR)
    try:
        return Ended(run.id, await task)
    except asyncio.CancelledError:
        return Ended(run.id, Outcome.cancelled(Reason.OPERATOR))
    finally:
        beating.cancel()
