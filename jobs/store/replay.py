"""Reading the ledger for the audit: what was in force when, each job's rows in order, contradictions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from jobs.attempt import AttemptOutcome, Purpose
from jobs.run import FINAL_STATES, REASONS, Reason, RunState, Trigger
from jobs.store import instances as instance_verbs
from jobs.store.jobs import StoredPeriod
from jobs.store.tables import SCHEDULED, attempts, instances, jobs, runs, schedule_periods

ROWS_A_FETCH = 1_000
MOST_LISTED = 20
_OWNER = tuple(instances.c[name] for name in ("host", "pid", "pid_started", "heartbeat_at", "stopped_at"))


@dataclass(frozen=True, slots=True)
class Known:
    """One job as far as it can be audited: rows up to `pruned_until` are not all there any more."""

    name: str
    first_seen_at: datetime
    cursor: datetime
    pruned_until: datetime | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a job's schedule: its instant, or `count` of them from `first` to `last`."""

    run_id: int
    first: datetime
    last: datetime
    count: int
    state: RunState
    reason: str | None


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Rows that cannot be right, whatever the schedules say: how many, and the ids of a few."""

    what: str
    count: int
    ids: tuple[int, ...]


def known_jobs(connection: Connection) -> list[Known]:
    """Return every job that a schedule was ever seen of, in order of names."""
    query = select(jobs.c.name, jobs.c.first_seen_at, jobs.c.cursor, jobs.c.pruned_until)
    rows = connection.execute(query.where(jobs.c.cursor.is_not(None)).order_by(jobs.c.name))
    return [Known(*row) for row in rows]


def periods_of(connection: Connection, job: str) -> list[StoredPeriod]:
    """Return all that was in force for a job, oldest first."""
    query = select(schedule_periods).where(schedule_periods.c.job == job).order_by(schedule_periods.c.id)
    return [
        StoredPeriod(row.id, row.since, row.until, row.timetable, row.paused)
        for row in connection.execute(query)
    ]


def entries_of(connection: Connection, job: str, *, after: datetime) -> Iterator[Entry]:
    """Yield a job's rows that reach beyond a moment, in order of their first instants, the widest first."""
    first = func.coalesce(runs.c.span_first, runs.c.scheduled_for).label("first")
    columns = (runs.c.id, first, runs.c.scheduled_for, runs.c.span_count, runs.c.state, runs.c.reason)
    query = (
        select(*columns)
        .where(runs.c.job == job, SCHEDULED, runs.c.scheduled_for > after)
        .order_by(first, runs.c.scheduled_for.desc(), runs.c.id)
    )
    for row in connection.execute(query.execution_options(yield_per=ROWS_A_FETCH)):
        yield Entry(row[0], row[1], row[2], row[3], RunState(row[4]), row[5])


def rows_before(connection: Connection, job: str, horizon: datetime) -> int:
    """Return how many rows of a job's schedule lie before a moment: nobody can say what they lack."""
    query = select(func.count()).select_from(runs)
    where = (runs.c.job == job, SCHEDULED, runs.c.scheduled_for <= horizon)
    return connection.execute(query.where(*where)).scalar_one()


def contradictions(connection: Connection) -> list[Contradiction]:
    """Return what cannot be right in the whole ledger."""
    final = runs.c.state.in_(FINAL_STATES)
    pruned = select(func.max(jobs.c.pruned_until)).scalar_subquery()
    orphans = (runs.c.trigger == Trigger.AFTER, runs.c.parent_id.is_(None))
    helped = and_(
        runs.c.state == RunState.SUCCEEDED, attempts.c.purpose.in_((Purpose.TITLE, Purpose.REFRESH))
    )
    sent = (attempts.c.outcome == AttemptOutcome.SENT, runs.c.finished_at.is_not(None), ~helped)
    newest = (
        select(func.max(schedule_periods.c.id)).where(schedule_periods.c.job == jobs.c.name).scalar_subquery()
    )
    asked = {
        "ended without saying when": select(runs.c.id).where(final, runs.c.finished_at.is_(None)),
        "has not ended, and says when": select(runs.c.id).where(~final, runs.c.finished_at.is_not(None)),
        "comes after no other run": select(runs.c.id).where(
            *orphans, or_(pruned.is_(None), runs.c.scheduled_for > pruned)
        ),
        "comes after a run that has not succeeded, or was due at another time": select(runs.c.id)
        .join(_parent, runs.c.parent_id == _parent.c.id)
        .where(runs.c.trigger == Trigger.AFTER, _brings_none_about()),
        "is of a job that no schedule is known of": select(runs.c.id).where(
            SCHEDULED, ~exists().where(schedule_periods.c.job == runs.c.job)
        ),
        "has ended for no reason that its state has": select(runs.c.id).where(_ended_otherwise()),
        "has ended, and an answer is waited for": select(runs.c.id)
        .join_from(attempts, runs, attempts.c.run_id == runs.c.id)
        .where(*sent),
        "is a period of a job that goes by another one": select(jobs.c.period_id).where(
            jobs.c.period_id != newest
        ),
    }
    found = [_found(connection, what, query) for what, query in asked.items()]
    return [each for each in found if each.count]


_parent = runs.alias("parent")


def _brings_none_about() -> ColumnElement[bool]:
    """Say of a run's parent that nothing comes after it, or not this."""
    return or_(
        _parent.c.state != RunState.SUCCEEDED,
        _parent.c.trigger == Trigger.DRILL,
        _parent.c.scheduled_for != runs.c.scheduled_for,
    )


def _ended_otherwise() -> ColumnElement[bool]:
    """Say of a run that its final state does not have its reason.

    Earlier versions cancelled what was asked for by hand of a process that is gone for that.
    """
    former = {RunState.CANCELLED: {Reason.PROCESS_GONE}}
    reason = func.coalesce(runs.c.reason, "")
    return or_(
        *(
            and_(runs.c.state == state, reason.not_in([*reasons, *former.get(state, ())]))
            for state, reasons in REASONS.items()
        )
    )


def _found(connection: Connection, what: str, query: Select[int]) -> Contradiction:
    rows = query.subquery()
    count = connection.execute(select(func.count()).select_from(rows)).scalar_one()
    ids = tuple(connection.execute(query.limit(MOST_LISTED)).scalars()) if count else ()
    return Contradiction(what, count, ids)


def left_behind(connection: Connection, *, now: datetime) -> list[int]:
    """Return the open runs of processes that are gone: nobody has taken them up yet."""
    query = (
        select(runs.c.id, *_OWNER)
        .join_from(runs, instances, runs.c.instance_id == instances.c.id)
        .where(runs.c.finished_at.is_(None))
    )
    rows = connection.execute(query).mappings()
    return sorted(row["id"] for row in rows if instance_verbs.is_gone(row, now=now))
