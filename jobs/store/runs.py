"""Runs in the ledger: claimed by inserting, moved forward by statements that name the state they leave."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, or_, select, update

from jobs.attempt import Step
from jobs.errors import FenceLost, NotYet
from jobs.run import (
    COUNTING_TRIGGERS,
    FAILED_STATES,
    ClaimedRun,
    Consequences,
    Outcome,
    PaidAnswer,
    Reason,
    RunState,
    Trigger,
)
from jobs.store import attempts as attempt_verbs
from jobs.store import claims, deliveries, holds
from jobs.store import jobs as job_verbs
from jobs.store.claims import NewRun
from jobs.store.followers import follow
from jobs.store.holds import NewHold
from jobs.store.tables import UtcDateTime, runs
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Ended:
    """What a run's end has brought about: its job's hold or why it is paused, and runs of other jobs."""

    hold: NewHold | None = None
    followers: tuple[ClaimedRun, ...] = ()
    decided: tuple[NewRun, ...] = ()
    replaced: tuple[int, ...] = ()
    paused: str | None = None


def add(
    connection: Connection,
    *,
    job: str,
    trigger: Trigger,
    instance_id: int,
    now: datetime,
    values: Mapping[str, Any] | None = None,
    skipped: Reason | None = None,
) -> ClaimedRun:
    """Insert a run that somebody asked for by hand; it belongs to the process that asks.

    With `skipped` its row is final at once and says why.
    """
    row = {
        "job": job,
        "scheduled_for": now,
        "trigger": trigger,
        "state": RunState.SKIPPED if skipped else RunState.QUEUED,
        "reason": str(skipped) if skipped else None,
        "instance_id": instance_id,
        "vars": dict(values) if values else None,
        "created_at": now,
        "finished_at": now if skipped else None,
    }
    run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
    return ClaimedRun(run_id, job, now, trigger, vars=dict(values or {}))


def add_retry(
    connection: Connection, parent_id: int, *, instance_id: int, now: datetime
) -> ClaimedRun | None:
    """Insert a run that does again what an ended one was to do; None where there is no such run."""
    parent = connection.execute(
        select(runs.c.job, runs.c.scheduled_for, runs.c.vars).where(
            runs.c.id == parent_id, runs.c.finished_at.is_not(None)
        )
    ).one_or_none()
    if parent is None:
        return None
    row = {
        "job": parent.job,
        "scheduled_for": parent.scheduled_for,
        "trigger": Trigger.RETRY,
        "parent_id": parent_id,
        "state": RunState.QUEUED,
        "instance_id": instance_id,
        "vars": parent.vars,
        "created_at": now,
    }
    run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
    return ClaimedRun(
        run_id, parent.job, parent.scheduled_for, Trigger.RETRY, vars=parent.vars or {}, parent_id=parent_id
    )


def start(
    connection: Connection, run: ClaimedRun, *, primary: Target, instance_id: int, now: datetime
) -> ClaimedRun:
    """Begin the next try of a queued run; return it with that try's number and when its first one began.

    Raises NotYet while an earlier run of its job has not ended and it is to come after that, and FenceLost
    when it is not queued any more.
    """
    said = {
        "of_run": run.id,
        "owner": instance_id,
        "begun_at": now,
        "asked_provider": primary.provider,
        "asked_model": primary.model,
    }
    begun = connection.execute(_START, said).one_or_none()
    if begun is not None:
        return replace(run, tries=begun.tries, started_at=begun.started_at, not_before=None)
    state = connection.execute(select(runs.c.state).where(runs.c.id == run.id)).scalar_one_or_none()
    if state == RunState.QUEUED:
        raise NotYet(f"run {run.id} waits for an earlier run of {run.job} to end")
    raise FenceLost(f"run {run.id} is not queued any more")


_earlier = runs.alias("earlier")
_EARLIER_IS_OPEN = exists().where(
    _earlier.c.job == runs.c.job, _earlier.c.id < runs.c.id, _earlier.c.finished_at.is_(None)
)
_START = (
    update(runs)
    .where(
        runs.c.id == bindparam("of_run"),
        runs.c.state == RunState.QUEUED,
        or_(~runs.c.behind, ~_EARLIER_IS_OPEN),
    )
    .values(
        state=RunState.RUNNING,
        tries=runs.c.tries + 1,
        instance_id=bindparam("owner"),
        started_at=func.coalesce(runs.c.started_at, bindparam("begun_at", type_=UtcDateTime)),
        requested_provider=bindparam("asked_provider"),
        requested_model=bindparam("asked_model"),
        not_before=None,
        reason=None,
        error_class=None,
        error_message=None,
        compressed_from=None,
        compressed_to=None,
        output=None,
        truncated=False,
        served_provider=None,
        served_model=None,
        served_credential=None,
    )
    .returning(runs.c.tries, runs.c.started_at)
)
_AT_WORK = update(runs).where(
    runs.c.id == bindparam("of_run"),
    runs.c.state == RunState.RUNNING,
    runs.c.tries == bindparam("of_try"),
)
"""Writes the columns that it is given, while this try of the run is at work: the fence."""

_REQUEUE = _AT_WORK.returning(runs.c.cancel_requested)


def keep_prompt(connection: Connection, run: ClaimedRun, prompt: str) -> None:
    """Store what the model is shown; raises FenceLost when another try, or an end, came first."""
    _write(connection, run, {"prompt": prompt})


def keep_shortened(connection: Connection, run: ClaimedRun, before: int, after: int) -> None:
    """Store how many characters of a prompt's material became how many; raises FenceLost as above."""
    _write(connection, run, {"compressed_from": before, "compressed_to": after})


def keep_answer(connection: Connection, paid: PaidAnswer) -> None:
    """Store what a model has answered to a try, while that runs: its end says later what it means.

    A run that somebody else has taken over meanwhile is left as it is.
    """
    row = {
        "output": paid.output,
        "truncated": paid.truncated,
        "served_provider": paid.served.provider,
        "served_model": paid.served.model,
        "served_credential": paid.served.credential,
        "fallback": paid.fallback,
    }
    connection.execute(_AT_WORK, {**row, "of_run": paid.run_id, "of_try": paid.tries})


def _write(connection: Connection, run: ClaimedRun, row: Mapping[str, Any]) -> None:
    changed = connection.execute(_AT_WORK, {**row, "of_run": run.id, "of_try": run.tries})
    if changed.rowcount != 1:
        raise _lost(run)


def _lost(run: ClaimedRun) -> FenceLost:
    return FenceLost(f"run {run.id} has ended already, or another try of it has begun")


def finish(
    connection: Connection,
    run: ClaimedRun,
    outcome: Outcome,
    *,
    now: datetime,
    consequences: Consequences = Consequences(),
    instance_id: int | None = None,
) -> Ended:
    """Write a run's end and all that it brings about: a hold or pause, deliveries, followers' runs.

    Raises FenceLost when another try, or another end, came first. An attempt that is still `sent` becomes
    `unknown`: it may have been paid. Followers belong to the process `instance_id`.
    """
    served = outcome.served
    row = {
        "state": outcome.state,
        "reason": outcome.reason,
        "error_class": outcome.error_class,
        "error_message": outcome.message,
        "served_provider": served.provider if served else None,
        "served_model": served.model if served else None,
        "served_credential": served.credential if served else None,
        "fallback": outcome.fallback,
        "fallback_reason": outcome.fallback_reason,
        "silent": outcome.silent,
        "finished_at": now,
    }
    if outcome.output is not None:  # else what was paid for already stays, whatever became of the run
        row |= {"output": outcome.output, "truncated": outcome.truncated}
    attempt_verbs.hear_no_more_of(connection, run.id)
    _write(connection, run, {**row, **attempt_verbs.tokens_of(connection, run.id)})
    paused = count_towards_pause(connection, run.job, run.trigger, outcome.state, consequences, now)
    hold = None
    if outcome.hold is not None:
        attempt_verbs.amend_recovery(connection, run.id, Step.HOLD)
        hold = holds.hold(connection, run, outcome.hold, now=now)
    deliveries.enqueue(connection, run, outcome, consequences, now=now)
    succeeded = outcome.state is RunState.SUCCEEDED and run.trigger is not Trigger.DRILL
    followers = consequences.followers if succeeded else ()
    return Ended(hold, *follow(connection, run, followers, instance_id=instance_id, now=now), paused)


def requeue(
    connection: Connection, run: ClaimedRun, outcome: Outcome, *, not_before: datetime, now: datetime
) -> ClaimedRun | None:
    """Let a run wait for another try; return it as it waits. Raises FenceLost as `finish` does.

    What this try has failed of stands in the row until the next one begins. None for a run whose end
    somebody has asked for meanwhile: it is cancelled.
    """
    row: dict[str, Any] = {
        "state": RunState.QUEUED,
        "not_before": not_before,
        "reason": outcome.reason,
        "error_class": outcome.error_class,
        "error_message": outcome.message,
    }
    attempt_verbs.hear_no_more_of(connection, run.id)
    fence = {"of_run": run.id, "of_try": run.tries}
    changed = connection.execute(
        _REQUEUE, {**row, **attempt_verbs.tokens_of(connection, run.id), **fence}
    ).one_or_none()
    if changed is None:
        raise _lost(run)
    if changed.cancel_requested is None:
        return replace(run, not_before=not_before)
    cancel_queued(connection, run.id, Reason(changed.cancel_requested), now=now)
    return None


def count_towards_pause(
    connection: Connection,
    job: str,
    trigger: Trigger,
    state: RunState,
    consequences: Consequences,
    now: datetime,
) -> str | None:
    """Count an end towards the failures in a row; pause the job when there are too many, and return why."""
    if trigger not in COUNTING_TRIGGERS:
        return None
    failures, most = job_verbs.count_end(connection, job, state), consequences.pause_after_failures
    if most is None or failures < most or state not in FAILED_STATES:
        return None
    why = f"{failures} failed runs in a row" if failures > 1 else "a failed run"
    return why if job_verbs.pause(connection, job, reason=why, now=now) else None


def give_title(connection: Connection, run: ClaimedRun, title: str | None, *, now: datetime) -> None:
    """End the making of a title, None where nobody has made one: nothing else of a final row ever changes.

    Only a success gets one, once, from the try that it is of. The row's tokens go on being those of all its
    attempts. An attempt that is still `sent` becomes `unknown`. What is to be delivered waits no longer.
    """
    attempt_verbs.hear_no_more_of(connection, run.id)
    untitled = and_(runs.c.id == run.id, runs.c.state == RunState.SUCCEEDED, runs.c.tries == run.tries)
    connection.execute(
        update(runs)
        .where(untitled, runs.c.title.is_(None))
        .values(title=title, **attempt_verbs.tokens_of(connection, run.id))
    )
    deliveries.wait_no_more(connection, run.id, now=now)


def request_cancel(connection: Connection, run_id: int, reason: Reason) -> bool:
    """Ask the owner of a running run to end it; returns whether it still runs."""
    changed = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.RUNNING)
        .values(cancel_requested=str(reason))
    )
    return changed.rowcount == 1


def to_be_cancelled(connection: Connection, instance_id: int) -> dict[int, Reason]:
    """Return the running runs of a process that somebody wants ended, and why."""
    rows = connection.execute(
        select(runs.c.id, runs.c.cancel_requested).where(
            runs.c.finished_at.is_(None),
            runs.c.instance_id == instance_id,
            runs.c.cancel_requested.is_not(None),
        )
    )
    return {row.id: Reason(row.cancel_requested) for row in rows}


def cancel_queued(connection: Connection, run_id: int, reason: Reason, *, now: datetime) -> bool:
    """End a run that waits; returns whether it was queued. One that never began counts for nothing."""
    return claims.end_waiting(connection, run_id, reason, now=now)
