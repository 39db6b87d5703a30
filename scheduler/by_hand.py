"""A run that somebody asks for: whether its job may be asked now, and its row in the ledger."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs import clock
from jobs.errors import Busy, UsageError
from jobs.run import ClaimedRun, Reason, Trigger
from jobs.store import ledger, runs
from jobs.store.holds import HeldJob
from scheduler.app import App
from scheduler.config.settings import ScheduledJob
from scheduler.holds import Holds
from scheduler.job_bounds import bounds_of


async def add_by_hand(
    app: App,
    job: ScheduledJob,
    *,
    trigger: Trigger,
    values: Mapping[str, Any] | None = None,
    retry_of: int | None = None,
    force: bool = False,
) -> ClaimedRun:
    """Insert a run that belongs to this process, and return it; with `retry_of` it repeats that run.

    Raises Busy when the job is held, unless with `force`: then the run asks what is closed for a time; and
    when its day's tokens are used up, with a row that says so. Raises UsageError when there is nothing to
    repeat.
    """
    held = None if trigger is Trigger.DRILL else await _hold_of(app, job)
    if held is not None and not force:
        raise Busy(
            f"{job.name} is held until {held.held_until:%Y-%m-%d %H:%M:%S} UTC: {held.hold_reason}; "
            "`promptd auth reset` what can be used again, or ask nevertheless with --force"
        )
    owner: dict[str, Any] = {"instance_id": app.workshop.instance_id, "now": clock.utcnow()}
    new: dict[str, Any] = {"job": job.name, "trigger": trigger, "values": values, **owner}
    if await _is_spent(app, job):
        run = await app.store.write(runs.add, **new, skipped=Reason.BUDGET)
        raise Busy(
            f"run {run.id} was skipped: the tokens of {job.name} for today are used up; "
            "raise max_tokens_per_day, or wait for tomorrow"
        )
    if retry_of is None:
        return replace(await app.store.write(runs.add, **new), probe=held is not None)
    again = await app.store.write(runs.add_retry, retry_of, **owner)
    if again is None:
        raise UsageError(f"run {retry_of} cannot be repeated: there is none, or it has not ended")
    return replace(again, probe=held is not None)


async def _hold_of(app: App, job: ScheduledJob) -> HeldJob | None:
    """Return the hold of a job, if it stands; of a job that never falls due one that is over is ended."""
    due = {name for name, each in app.settings.jobs.items() if each.schedule is not None}
    holds = Holds(app, due=due)
    judged = await holds.judged()
    if job.name in judged.over and job.name not in due:
        await holds.release([judged.over[job.name]])
    return judged.standing.get(job.name)


async def _is_spent(app: App, job: ScheduledJob) -> bool:
    budget = bounds_of(job, now=clock.utcnow()).budget
    if budget is None:
        return False
    used = await app.store.read(ledger.tokens_used, job.name, since=budget.since)
    return used >= budget.tokens
