"""How long the tries of a run may take together, and whether another one follows: rules, no effects."""

from datetime import datetime, timedelta

from jobs.definition import Job
from jobs.run import ClaimedRun, Outcome, RunState, Trigger


def time_left(run: ClaimedRun, job: Job, *, now: datetime) -> timedelta:
    """Return how long a try that begins now may take: the job's timeout counts from the first try's start.

    A clock that was set back gives no try more than the whole timeout.
    """
    began = run.started_at or now
    return min(job.timeout, max(timedelta(), began + job.timeout - now))


def settled(run: ClaimedRun, job: Job, outcome: Outcome, *, now: datetime) -> Outcome:
    """Return what a try's outcome means for its run: the end, or another try where the job wants one.

    A run is tried again when its whole chain has failed for a class that the job names, and not when that
    holds the job: then another run makes up for it. A drill is tried once. Tries that ended with their
    process cost none of the job's.
    """
    retry, tried = job.retry, run.tries - run.crashes
    if retry is None or run.trigger is Trigger.DRILL or tried > retry.max:
        return outcome
    if outcome.state is not RunState.FAILED or outcome.hold is not None or outcome.error_class is None:
        return outcome
    not_before = now + retry.delay(tried)
    if outcome.error_class not in retry.on or not_before >= now + time_left(run, job, now=now):
        return outcome
    return Outcome.again(outcome.error_class, outcome.message or "", not_before=not_before)
