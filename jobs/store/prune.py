"""Removing what need not be kept: old runs with all that is theirs, alerts, processes; in portions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    SelectBase,
    Table,
    and_,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    true,
    update,
)

from jobs.delivery_state import DeliveryState
from jobs.run import RunState, Trigger
from jobs.store import instances as instance_verbs
from jobs.store.deliveries import BESIDE_EACH_OTHER
from jobs.store.tables import (
    alerts,
    attempts,
    deliveries,
    instances,
    jobs,
    marks,
    runs,
    schedule_periods,
    tokens,
)

RUNS_A_PORTION = 200
ROWS_READ_A_PORTION = 100_000
SILENT_FOR = timedelta(days=1)
"""For so long an instance that never said it stopped is kept, whatever its process looks like from here."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Of each job's ended runs the newest `runs` are kept, as far as they ended at `since` or later.

    Those that ended at `all_since` or later stay, however many they are.
    """

    runs: int
    since: datetime | None = None
    all_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were removed, and up to which instant a job's rows are not all there any more.

    `dead_letters` are deliveries of the runs that had failed for good.
    """

    runs: int = 0
    attempts: int = 0
    dead_letters: int = 0
    until: datetime | None = None

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + other.runs,
            self.attempts + other.attempts,
            self.dead_letters + other.dead_letters,
            max((each for each in (self.until, other.until) if each is not None), default=None),
        )


def names(connection: Connection) -> list[str]:
    """Return the jobs that have runs, in order; also those that no file knows any more."""
    return list(connection.execute(select(runs.c.job).distinct().order_by(runs.c.job)).scalars())


def count(connection: Connection, job: str, keep: Keep) -> int:
    """Return how many runs of a job would be removed."""
    return _number(connection, _superfluous(connection, job, keep))


def count_all(connection: Connection, job: str, keep: Keep) -> Pruned:
    """Return what of a job would be removed, without its horizon."""
    found = _superfluous(connection, job, keep).subquery()
    ids = select(found.c.id)
    return Pruned(
        _number(connection, ids),
        _number(connection, select(attempts.c.id).where(attempts.c.run_id.in_(ids), ~_NAMED)),
        _number(connection, select(deliveries.c.id).where(_dead_letters_of(ids))),
    )


def prune(connection: Connection, job: str, keep: Keep, *, at_most: int = RUNS_A_PORTION) -> Pruned:
    """Remove a job's oldest superfluous runs, and let its audit begin behind them.

    An attempt that a mark or a spent token names stays, without its run. What has not ended stays, and so do
    the newest answer, the last one that was told, what a hold makes up for, what an open run comes from, and
    what is to be delivered.
    """
    found = connection.execute(_superfluous(connection, job, keep).order_by(runs.c.id).limit(at_most)).all()
    if not found:
        return Pruned()
    ids, until = [row.id for row in found], max(row.scheduled_for for row in found)
    removed = connection.execute(delete(attempts).where(attempts.c.run_id.in_(ids), ~_NAMED)).rowcount
    dead_letters = _number(connection, select(deliveries.c.id).where(_dead_letters_of(ids)))
    connection.execute(delete(runs).where(runs.c.id.in_(ids), runs.c.finished_at.is_not(None)))
    _move_horizon(connection, job, until)
    return Pruned(len(ids), removed, dead_letters, until)


def prune_attempts(connection: Connection, keep: Keep, *, at_most: int = RUNS_A_PORTION) -> int:
    """Remove the oldest superfluous attempts that belong to no run; return how many."""
    return _removed(connection, attempts, _old_attempts(keep), at_most)


def count_attempts(connection: Connection, keep: Keep) -> int:
    """Return how many attempts that belong to no run would be removed."""
    return _number(connection, select(attempts.c.id).where(_old_attempts(keep)))


def prune_alerts(connection: Connection, keep: Keep, *, at_most: int = RUNS_A_PORTION) -> int:
    """Remove the oldest superfluous notices and alerts that are over; return how many rows.

    What is to be delivered stays, with its alert, and so does an alert that is open.
    """
    removed = _removed(connection, deliveries, _old_notices(keep), at_most)
    return removed + _removed(connection, alerts, _old_alerts(keep, without=true()), at_most)


def count_alerts(connection: Connection, keep: Keep) -> int:
    """Return how many notices and alerts would be removed, first the ones and then the others."""
    notices = select(deliveries.c.id).where(_old_notices(keep))
    over = select(alerts.c.id).where(_old_alerts(keep, without=deliveries.c.id.not_in(notices)))
    return _number(connection, notices) + _number(connection, over)


def ended_instances(connection: Connection, keep: Keep, *, now: datetime) -> list[int]:
    """Return the superfluous instances that have ended and that no row refers to, oldest first.

    Of those that have ended the newest `keep.runs` stay, as far as they ended at `keep.since` or later, and
    so does the newest of all, since SQLite would give its id to the next one. The runs are read once.
    """
    killed = instance_verbs.killed(connection, silent_since=now - SILENT_FOR, now=now)
    ended = or_(instances.c.stopped_at.is_not(None), instances.c.id.in_(killed))
    old = _old(instances, instances.c.heartbeat_at, ended, keep)
    newest = select(func.max(instances.c.id)).scalar_subquery()
    superfluous = select(instances.c.id).where(old, instances.c.id < newest).order_by(instances.c.id)
    found = connection.execute(superfluous).scalars().all()
    if not found:
        return []
    named = {
        instance_id
        for column in (runs.c.instance_id, deliveries.c.sending_by)
        for instance_id in connection.execute(select(column).distinct().where(column.is_not(None))).scalars()
    }
    return [instance_id for instance_id in found if instance_id not in named]


def prune_instances(connection: Connection, ids: Sequence[int]) -> int:
    """Remove the first of these instances, which `ended_instances` has found; return how many.

    Of each the database asks every run and every delivery whether it refers to it, for which there is no
    index: a portion is smaller the more of them there are.
    """
    spans = (select(func.max(each.c.id) - func.min(each.c.id)) for each in (runs, deliveries))
    read = 1 + sum(connection.execute(span).scalar_one() or 0 for span in spans)
    portion = ids[: max(1, min(RUNS_A_PORTION, ROWS_READ_A_PORTION // read))]
    connection.execute(delete(instances).where(instances.c.id.in_(portion)))
    return len(portion)


def _old_attempts(keep: Keep) -> ColumnElement[bool]:
    """Say which attempts need not be kept; one that a mark or a spent token names counts, and stays."""
    return and_(_old(attempts, attempts.c.started_at, attempts.c.run_id.is_(None), keep), ~_NAMED)


def _old_notices(keep: Keep) -> ColumnElement[bool]:
    told = and_(deliveries.c.alert_id.is_not(None), deliveries.c.finished_at.is_not(None))
    return _old(deliveries, deliveries.c.finished_at, told, keep)


def _old_alerts(keep: Keep, *, without: ColumnElement[bool]) -> ColumnElement[bool]:
    """Say which alerts need not be kept: they are over, and have none of those notices."""
    noticed = exists().where(deliveries.c.alert_id == alerts.c.id, without)
    return _old(alerts, alerts.c.resolved_at, and_(alerts.c.resolved_at.is_not(None), ~noticed), keep)


def _dead_letters_of(run_ids: Select[int] | Sequence[int]) -> ColumnElement[bool]:
    return and_(deliveries.c.run_id.in_(run_ids), deliveries.c.state == DeliveryState.FAILED)


def _number(connection: Connection, found: SelectBase) -> int:
    return connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()


def _old(
    table: Table, ended_at: ColumnElement[Any], ended: ColumnElement[bool], keep: Keep
) -> ColumnElement[bool]:
    """Say which of the rows that have ended need not be kept."""
    boundary = (
        select(table.c.id).where(ended).order_by(table.c.id.desc()).offset(keep.runs).limit(1)
    ).scalar_subquery()
    free = ended_at < keep.all_since if keep.all_since is not None else true()
    return and_(ended, free, or_(table.c.id <= boundary, _before(ended_at, keep)))


def _removed(connection: Connection, table: Table, superfluous: ColumnElement[bool], at_most: int) -> int:
    ids = select(table.c.id).where(superfluous).order_by(table.c.id).limit(at_most)
    found = connection.execute(ids).scalars().all()
    if found:
        connection.execute(delete(table).where(table.c.id.in_(found)))
    return len(found)


_NAMED = or_(
    exists().where(marks.c.attempt_id == attempts.c.id), exists().where(tokens.c.spent_by == attempts.c.id)
)
_later = runs.alias("later")
_child = runs.alias("child")
_told = runs.alias("told")


def _superfluous(connection: Connection, job: str, keep: Keep) -> Select[int, datetime]:
    """Return the query of a job's runs that need not be kept."""
    ended = and_(runs.c.job == job, runs.c.finished_at.is_not(None))
    boundary = connection.execute(
        select(runs.c.id).where(ended).order_by(runs.c.id.desc()).offset(keep.runs).limit(1)
    ).scalar_one_or_none()
    too_many = runs.c.id <= boundary if boundary is not None else false()
    free = runs.c.finished_at < keep.all_since if keep.all_since is not None else true()
    return select(runs.c.id, runs.c.scheduled_for).where(
        ended, free, or_(too_many, _before(runs.c.finished_at, keep)), ~_needed(job)
    )


def _needed(job: str) -> ColumnElement[bool]:
    """Say of a run whether somebody will ask for it."""
    answers = select(_later.c.id).where(
        _later.c.job == job, _later.c.state == RunState.SUCCEEDED, _later.c.trigger != Trigger.DRILL
    )
    newest = answers.order_by(_later.c.id.desc())
    told = newest.where(_later.c.silent.is_(False))
    by_end = select(_told.c.id).where(_told.c.id.in_(told.limit(BESIDE_EACH_OTHER)))
    last_told = by_end.order_by(_told.c.finished_at.desc(), _told.c.id.desc())
    kept = (query.limit(1).scalar_subquery() for query in (newest, told, last_told))
    return or_(
        *(runs.c.id == func.coalesce(run_id, 0) for run_id in kept),
        exists().where(jobs.c.held_by == runs.c.id),
        exists().where(_child.c.parent_id == runs.c.id, _child.c.finished_at.is_(None)),
        exists().where(deliveries.c.run_id == runs.c.id, deliveries.c.state == DeliveryState.PENDING),
    )


def _before(column: ColumnElement[Any], keep: Keep) -> ColumnElement[bool]:
    return column < keep.since if keep.since is not None else false()


def _move_horizon(connection: Connection, job: str, until: datetime) -> None:
    """Say up to where a job's rows are not all there, and forget the periods that lie wholly before."""
    further = or_(jobs.c.pruned_until.is_(None), jobs.c.pruned_until < until)
    connection.execute(update(jobs).where(jobs.c.name == job, further).values(pruned_until=until))
    horizon = select(jobs.c.pruned_until).where(jobs.c.name == job).scalar_subquery()
    newest = select(jobs.c.period_id).where(jobs.c.name == job).scalar_subquery()
    connection.execute(
        delete(schedule_periods).where(
            schedule_periods.c.job == job,
            schedule_periods.c.until <= horizon,
            schedule_periods.c.id != newest,
        )
    )
