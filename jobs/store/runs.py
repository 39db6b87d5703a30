"""Runs in the ledger: claimed by inserting, moved forward by statements that name the state they leave."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, and_, func, insert, literal, select, update
from sqlalchemy.sql.elements import ColumnElement

from jobs.attempt import AttemptOutcome, Step
from jobs.errors import FenceLost
from jobs.run import (
    SCHEDULED_TRIGGERS,
    ClaimedRun,
    Outcome,
    Reason,
    RunState,
    Trigger,
)
from jobs.store import attempts as attempt_verbs
from jobs.store import holds
from jobs.store import instances as instance_verbs
from jobs.store import jobs as job_verbs
from jobs.store.holds import NewHold
from jobs.store.jobs import insert_or_ignore
from jobs.store.tables import UtcDateTime, attempts, instances, runs
from jobs.target import Target

_ROWS_A_STATEMENT = 500
_LOOKED_BACK = 1_000


@dataclass(frozen=True, slots=True)
class NewRun:
    """A row to be claimed. `state` is `queued`, or final for an instant that will never run.

    A row that spans several instants stands at the last one, and says the first and how many.
    """

    job: str
    scheduled_for: datetime
    trigger: Trigger
    state: RunState = RunState.QUEUED
    reason: str | None = None
    span_first: datetime | None = None
    span_count: int = 1


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim has won: queued runs that are ours to do, and instants that ended as they were decided."""

    ours: tuple[ClaimedRun, ...]
    final: tuple[NewRun, ...]


def claim(
    connection: Connection,
    new: Sequence[NewRun],
    *,
    cursors: Iterable[tuple[str, datetime]],
    instance_id: int,
    now: datetime,
) -> Claimed:
    """Insert rows; what came of them is what this process alone has decided.

    An instant that has a row already is somebody else's and is left out. A run whose job is still at
    work becomes `skipped: overlap`.
    """
    busy = _jobs_at_work(connection)
    rows = []
    for run in new:
        row = _row_of(run, busy, instance_id, now)
        rows.append(row)
        if row["state"] == RunState.QUEUED:
            busy.add(run.job)
    ours: list[ClaimedRun] = []
    final: list[NewRun] = []
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        inserted = connection.execute(
            insert_or_ignore(connection, runs)
            .values(rows[start : start + _ROWS_A_STATEMENT])
            .returning(*(runs.c[name] for name in ("id", *NewRun.__slots__)))
        )
        for won in inserted:
            if won.state == RunState.QUEUED:
                ours.append(ClaimedRun(won.id, won.job, won.scheduled_for, Trigger(won.trigger)))
            else:
                final.append(NewRun(**{name: won._mapping[name] for name in NewRun.__slots__}))
    job_verbs.advance(connection, cursors)
    return Claimed(tuple(ours), tuple(final))


def _jobs_at_work(connection: Connection) -> set[str]:
    return set(
        connection.execute(select(runs.c.job).where(runs.c.finished_at.is_(None)).distinct()).scalars()
    )


def _row_of(run: NewRun, busy: set[str], instance_id: int, now: datetime) -> dict[str, Any]:
    overlaps = run.state is RunState.QUEUED and run.job in busy
    state = RunState.SKIPPED if overlaps else run.state
    return {
        "job": run.job,
        "scheduled_for": run.scheduled_for,
        "trigger": run.trigger,
        "state": state,
        "reason": str(Reason.OVERLAP) if overlaps else run.reason,
        "span_first": run.span_first,
        "span_count": run.span_count,
        "instance_id": instance_id,
        "created_at": now,
        "finished_at": None if state is RunState.QUEUED else now,
    }


def add(
    connection: Connection,
    *,
    job: str,
    trigger: Trigger,
    instance_id: int,
    now: datetime,
    values: Mapping[str, Any] | None = None,
) -> ClaimedRun:
    """Insert a run that somebody asked for by hand; it belongs to the process that asks."""
    row = {
        "job": job,
        "scheduled_for": now,
        "trigger": trigger,
        "state": RunState.QUEUED,
        "instance_id": instance_id,
        "vars": dict(values) if values else None,
        "created_at": now,
    }
    run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
    return ClaimedRun(run_id, job, now, trigger, vars=dict(values or {}))


def start(
    connection: Connection, run: ClaimedRun, *, primary: Target, instance_id: int, now: datetime
) -> int:
    """Begin the next try of a queued run and return its number; raises FenceLost when it is not queued."""
    number = connection.execute(
        update(runs)
        .where(runs.c.id == run.id, runs.c.state == RunState.QUEUED)
        .values(
            state=RunState.RUNNING,
            tries=runs.c.tries + 1,
            instance_id=instance_id,
            started_at=func.coalesce(runs.c.started_at, literal(now, UtcDateTime)),
            requested_provider=primary.provider,
            requested_model=primary.model,
            compressed_from=None,
            compressed_to=None,
        )
        .returning(runs.c.tries)
    ).scalar_one_or_none()
    if number is None:
        raise FenceLost(f"run {run.id} is not queued any more")
    return int(number)


def keep_prompt(connection: Connection, run: ClaimedRun, prompt: str) -> None:
    """Store what the model is shown; raises FenceLost when another try, or an end, came first."""
    _require_fence(connection.execute(update(runs).where(_at_work(run)).values(prompt=prompt)), run)


def keep_shortened(connection: Connection, run: ClaimedRun, before: int, after: int) -> None:
    """Store how many characters of a prompt's material became how many; raises FenceLost as above."""
    lengths = {"compressed_from": before, "compressed_to": after}
    _require_fence(connection.execute(update(runs).where(_at_work(run)).values(**lengths)), run)


def _at_work(run: ClaimedRun) -> ColumnElement[bool]:
    """The fence: this try of the run, while it runs."""
    return and_(runs.c.id == run.id, runs.c.state == RunState.RUNNING, runs.c.tries == run.tries)


def _require_fence(changed: CursorResult[Any], run: ClaimedRun) -> None:
    if changed.rowcount != 1:
        raise FenceLost(f"run {run.id} has ended already, or another try of it has begun")


def finish(connection: Connection, run: ClaimedRun, outcome: Outcome, *, now: datetime) -> NewHold | None:
    """Write a run's end, and its job's hold if it brings one; return that.

    Raises FenceLost when another try, or another end, came first. An attempt that is still `sent` becomes
    `unknown`: it may have been paid.
    """
    row = {
        "state": outcome.state,
        "reason": outcome.reason,
        "error_class": outcome.error_class,
        "error_message": outcome.message,
        "output": outcome.output,
        "truncated": outcome.truncated,
        "fallback": outcome.fallback,
        "fallback_reason": outcome.fallback_reason,
        "finished_at": now,
    }
    if outcome.served is not None:
        row["served_provider"] = outcome.served.provider
        row["served_model"] = outcome.served.model
        row["served_credential"] = outcome.served.credential
    _hear_no_more(connection, attempts.c.run_id == run.id)
    spent = _tokens_of(connection, run.id)
    _require_fence(connection.execute(update(runs).where(_at_work(run)).values(**row, **spent)), run)
    if run.trigger in (*SCHEDULED_TRIGGERS, Trigger.AFTER):
        job_verbs.count_end(connection, run.job, outcome.state)
    if outcome.hold is None:
        return None
    attempt_verbs.amend_recovery(connection, run.id, Step.HOLD)
    return holds.hold(connection, run, outcome.hold, now=now)


def give_title(connection: Connection, run: ClaimedRun, title: str | None) -> None:
    """End the making of a title, None where nobody has made one: nothing else of a final row ever changes.

    Only a success gets one, once, from the try that it is of. The row's tokens go on being those of all its
    attempts. An attempt that is still `sent` becomes `unknown`.
    """
    _hear_no_more(connection, attempts.c.run_id == run.id)
    untitled = and_(runs.c.id == run.id, runs.c.state == RunState.SUCCEEDED, runs.c.tries == run.tries)
    connection.execute(
        update(runs)
        .where(untitled, runs.c.title.is_(None))
        .values(title=title, **_tokens_of(connection, run.id))
    )


def _tokens_of(connection: Connection, run_id: int) -> dict[str, int | None]:
    row = connection.execute(
        select(func.sum(attempts.c.input_tokens), func.sum(attempts.c.output_tokens)).where(
            attempts.c.run_id == run_id
        )
    ).one()
    return {"input_tokens": row[0], "output_tokens": row[1]}


def _hear_no_more_of_titles(connection: Connection, *, now: datetime) -> None:
    """Settle what processes that are gone had sent for the titles of runs that had ended already.

    Looks at the ledger's newest attempts: every beat of every daemon does.
    """
    newest = select(func.coalesce(func.max(attempts.c.id), 0)).scalar_subquery()
    sent = connection.execute(
        select(attempts.c.id.label("attempt_id"), instances)
        .join_from(attempts, runs, attempts.c.run_id == runs.c.id)
        .join(instances, runs.c.instance_id == instances.c.id)
        .where(
            attempts.c.id > newest - _LOOKED_BACK,
            attempts.c.outcome == AttemptOutcome.SENT,
            runs.c.finished_at.is_not(None),
        )
    ).mappings()
    orphans = [row["attempt_id"] for row in sent if instance_verbs.is_gone(row, now=now)]
    if orphans:
        _hear_no_more(connection, attempts.c.id.in_(orphans))


def _hear_no_more(connection: Connection, which: ColumnElement[bool]) -> None:
    connection.execute(
        update(attempts)
        .where(which, attempts.c.outcome == AttemptOutcome.SENT)
        .values(outcome=AttemptOutcome.UNKNOWN)
    )


def cancel_queued(connection: Connection, run_id: int, reason: Reason, *, now: datetime) -> bool:
    """End a run that has not begun; returns whether it was still queued."""
    changed = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.QUEUED)
        .values(state=RunState.CANCELLED, reason=str(reason), finished_at=now)
    )
    return changed.rowcount == 1


def recover(connection: Connection, *, instance_id: int, now: datetime) -> list[ClaimedRun]:
    """Settle what processes that are gone have left; return the queued runs that are now ours.

    A running one ends `abandoned`, since its call may have been paid. A queued one has not begun and is
    taken up, except what somebody had asked for by hand and no longer waits for.
    """
    _hear_no_more_of_titles(connection, now=now)
    left = connection.execute(
        select(runs.c.id, runs.c.job, runs.c.scheduled_for, runs.c.trigger, runs.c.state, instances)
        .join_from(runs, instances, runs.c.instance_id == instances.c.id)
        .where(runs.c.finished_at.is_(None))
        .order_by(runs.c.id)
    ).mappings()
    orphans = [row for row in left if instance_verbs.is_gone(row, now=now)]
    taken = []
    for row in orphans:
        by_hand = row["trigger"] in (Trigger.MANUAL, Trigger.ASK, Trigger.DRILL)
        if row["state"] == RunState.RUNNING:
            _abandon(connection, row[runs.c.id], row[runs.c.job], Trigger(row["trigger"]), now)
        elif by_hand:
            cancel_queued(connection, row[runs.c.id], Reason.PROCESS_GONE, now=now)
        else:
            connection.execute(
                update(runs).where(runs.c.id == row[runs.c.id]).values(instance_id=instance_id)
            )
            taken.append(
                ClaimedRun(row[runs.c.id], row[runs.c.job], row["scheduled_for"], Trigger(row["trigger"]))
            )
    return taken


def _abandon(connection: Connection, run_id: int, job: str, trigger: Trigger, now: datetime) -> None:
    _hear_no_more(connection, attempts.c.run_id == run_id)
    connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.RUNNING)
        .values(state=RunState.ABANDONED, reason=str(Reason.PROCESS_GONE), finished_at=now)
    )
    if trigger in (*SCHEDULED_TRIGGERS, Trigger.AFTER):
        job_verbs.count_end(connection, job, RunState.ABANDONED)
