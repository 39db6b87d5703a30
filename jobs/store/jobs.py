"""What happened to jobs: first sight, cursor, timetables, pause, failures in a row."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, bindparam, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.run import FAILED_STATES, RunState
from jobs.store.tables import UtcDateTime, jobs, schedule_periods

T = TypeVar("T")
NAMES_A_STATEMENT = 500
_NOT_HELD = dict.fromkeys(("held_until", "opens_at", "held_by", "hold_key", "hold_reason", "probed_at"))
_STATE = (
    *("name", "first_seen_at", "cursor", "period_id", "pruned_until", "paused_at", "pause_reason"),
    *("held_until", "consecutive_failures", "runs_started"),
)


@dataclass(frozen=True, slots=True)
class StoredPeriod:
    """A stretch of time in which a job had one timetable: the instants in (since, until] are owed.

    `until` None: it stands. `timetable` None: nothing falls due. In a paused one all instants are skipped.
    """

    id: int
    since: datetime
    until: datetime | None
    timetable: str | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class JobState:
    """One job's row, with the periods that are not wholly decided yet, oldest first.

    Nothing up to `cursor` is owed any more. A job none of whose periods stands has come to its end.
    """

    name: str
    first_seen_at: datetime
    cursor: datetime | None = None
    period_id: int | None = None
    pruned_until: datetime | None = None
    paused_at: datetime | None = None
    pause_reason: str | None = None
    held_until: datetime | None = None
    consecutive_failures: int = 0
    runs_started: int = 0
    periods: tuple[StoredPeriod, ...] = ()

    @property
    def decided_until(self) -> datetime:
        """The moment up to which every instant has been decided."""
        return self.cursor or self.first_seen_at


def insert_or_ignore(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT … ON CONFLICT DO NOTHING of a dialect, by SQLAlchemy's name for it."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def in_portions(names: Iterable[T]) -> Iterator[list[T]]:
    """Yield names, or ids, in lists that are short enough for one statement."""
    left = iter(names)
    while portion := list(islice(left, NAMES_A_STATEMENT)):
        yield portion


def states(connection: Connection, names: Collection[str] | None = None) -> dict[str, JobState]:
    """Return jobs' states by name: of all that are known, removed ones included, or of the named ones."""
    if names is not None:
        found: dict[str, JobState] = {}
        for portion in in_portions(names):
            found |= _states(connection, portion)
        return found
    return _states(connection, None)


def _states(connection: Connection, names: list[str] | None) -> dict[str, JobState]:
    rows = select(*(jobs.c[name] for name in _STATE))
    owed = (
        select(schedule_periods)
        .join(jobs, jobs.c.name == schedule_periods.c.job)
        .where(
            or_(
                schedule_periods.c.until.is_(None),
                schedule_periods.c.until > func.coalesce(jobs.c.cursor, jobs.c.first_seen_at),
            )
        )
        .order_by(schedule_periods.c.id)
    )
    if names is not None:
        rows, owed = rows.where(jobs.c.name.in_(names)), owed.where(jobs.c.name.in_(names))
    periods: defaultdict[str, list[StoredPeriod]] = defaultdict(list)
    for row in connection.execute(owed):
        periods[row.job].append(StoredPeriod(row.id, row.since, row.until, row.timetable, row.paused))
    return {
        row.name: JobState(**row._mapping, periods=tuple(periods[row.name]))
        for row in connection.execute(rows)
    }


def see(
    connection: Connection, timetables: Mapping[str, str | None], *, now: datetime
) -> dict[str, JobState]:
    """Take note of what the files say of every job's timetable; None where nothing falls due.

    A job is owed nothing from before its first sight, nor, when its timetable changed or it was gone from
    the files in between, from before now. A job that is not named is gone: its history stays.
    """
    known = _newest_timetables(connection)
    new = [name for name in timetables if name not in known]
    _insert_jobs(connection, new, now)
    changed = {
        name: key for name, key in timetables.items() if name in new or not same_timetable(known[name], key)
    }
    gone = [name for name, key in known.items() if name not in timetables and key is not None]
    _change(connection, changed | dict.fromkeys(gone), now)
    for portion in in_portions(gone):
        connection.execute(update(jobs).where(jobs.c.name.in_(portion)).values(_NOT_HELD))
    return {name: state for name, state in states(connection).items() if name in timetables}


def see_one(connection: Connection, name: str, timetable: str | None, *, now: datetime) -> None:
    """Make the row of a job that nobody has seen yet; one that is known stays as it is."""
    if connection.execute(select(jobs.c.period_id).where(jobs.c.name == name)).scalar_one_or_none() is None:
        _insert_jobs(connection, [name], now)
        _change(connection, {name: timetable}, now)


def _newest_timetables(connection: Connection) -> dict[str, str | None]:
    """Return what each job's newest period says, also of a schedule that has come to its end.

    A job without any period (held by hand before a daemon saw it) is not known yet.
    """
    rows = connection.execute(
        select(jobs.c.name, schedule_periods.c.timetable).join(
            schedule_periods, schedule_periods.c.id == jobs.c.period_id
        )
    )
    return {row.name: row.timetable for row in rows}


def _insert_jobs(connection: Connection, names: list[str], now: datetime) -> None:
    rows = [{"name": name, "first_seen_at": now, "cursor": now} for name in names]
    if rows:
        connection.execute(insert_or_ignore(connection.dialect.name, jobs), rows)


def same_timetable(one: str | None, other: str | None) -> bool:
    """Say whether two timetables are the same, however they are spaced and ordered."""
    if one is None or other is None:
        return one is other
    return one == other or bool(json.loads(one) == json.loads(other))


def _change(connection: Connection, timetables: Mapping[str, str | None], now: datetime) -> None:
    """Let other timetables begin now; what is not decided yet of the former ones is owed no more."""
    for portion in in_portions(timetables):
        mine = schedule_periods.c.job.in_(portion)
        cursor = (
            select(func.coalesce(jobs.c.cursor, jobs.c.first_seen_at))
            .where(jobs.c.name == schedule_periods.c.job)
            .scalar_subquery()
        )
        connection.execute(delete(schedule_periods).where(mine, schedule_periods.c.since > cursor))
        still_owed = or_(schedule_periods.c.until.is_(None), schedule_periods.c.until > cursor)
        connection.execute(update(schedule_periods).where(mine, still_owed).values(until=cursor))
        _begin(connection, {name: timetables[name] for name in portion}, now)


def _begin(connection: Connection, timetables: Mapping[str, str | None], now: datetime) -> None:
    """Begin periods; after a clock that was set back not before the cursor, so that nothing is owed twice."""
    mine = jobs.c.name.in_(timetables)
    known = connection.execute(select(jobs.c.name, jobs.c.paused_at, jobs.c.cursor).where(mine)).all()
    since = {row.name: max(now, row.cursor or now) for row in known}
    connection.execute(
        insert(schedule_periods),
        [
            {
                "job": row.name,
                "since": since[row.name],
                "timetable": timetables[row.name],
                "paused": row.paused_at is not None,
            }
            for row in known
        ],
    )
    connection.execute(
        update(jobs)
        .where(mine)
        .values(
            cursor=case(
                (jobs.c.cursor > literal(now, UtcDateTime), jobs.c.cursor), else_=literal(now, UtcDateTime)
            ),
            period_id=_newest_period(),
            **_NOT_HELD,
        )
    )


def _newest_period() -> Any:
    return (
        select(func.max(schedule_periods.c.id)).where(schedule_periods.c.job == jobs.c.name).scalar_subquery()
    )


def pause(connection: Connection, name: str, *, reason: str | None, now: datetime) -> bool:
    """Skip what falls due from now on; returns whether it was not paused before."""
    return _pause(connection, name, paused_at=now, reason=reason, now=now)


def resume(connection: Connection, name: str, *, now: datetime) -> bool:
    """Run again what falls due from now on, and forget the failures; returns whether it was paused."""
    return _pause(connection, name, paused_at=None, reason=None, now=now)


def _pause(
    connection: Connection, name: str, *, paused_at: datetime | None, reason: str | None, now: datetime
) -> bool:
    before = jobs.c.paused_at.is_(None) if paused_at else jobs.c.paused_at.is_not(None)
    values: dict[str, Any] = {"paused_at": paused_at, "pause_reason": reason}
    if paused_at is None:
        values["consecutive_failures"] = 0
    changed = connection.execute(update(jobs).where(jobs.c.name == name, before).values(values))
    if changed.rowcount != 1:
        return False
    stands = (schedule_periods.c.job == name, schedule_periods.c.until.is_(None))
    period = connection.execute(select(schedule_periods).where(*stands)).one_or_none()
    if period is not None:
        moment = max(now, period.since, _decided_until(connection, name) or now)
        connection.execute(update(schedule_periods).where(*stands).values(until=moment))
        _follow(connection, name, since=moment, timetable=period.timetable, paused=paused_at is not None)
    return True


def _follow(
    connection: Connection, name: str, *, since: datetime, timetable: str | None, paused: bool
) -> None:
    """Begin a job's next period, without a word about what is owed from before it."""
    row = {"job": name, "since": since, "timetable": timetable, "paused": paused}
    connection.execute(insert(schedule_periods).values(row))
    connection.execute(update(jobs).where(jobs.c.name == name).values(period_id=_newest_period()))


def _decided_until(connection: Connection, name: str) -> datetime | None:
    return connection.execute(select(jobs.c.cursor).where(jobs.c.name == name)).scalar_one_or_none()


def end_schedule(connection: Connection, name: str, *, at: datetime | None = None) -> None:
    """Let a job's schedule end with the instant `at`, or with what is decided: nothing later is owed."""
    stands = (schedule_periods.c.job == name, schedule_periods.c.until.is_(None))
    since = connection.execute(select(schedule_periods.c.since).where(*stands)).scalar_one_or_none()
    if since is not None:
        until = max(since, at or _decided_until(connection, name) or since)
        connection.execute(update(schedule_periods).where(*stands).values(until=until))


def give_back(connection: Connection, name: str, *, now: datetime) -> None:
    """Count a run as not started after all; a schedule that had ended with it goes on from now."""
    connection.execute(
        update(jobs)
        .where(jobs.c.name == name, jobs.c.runs_started > 0)
        .values(runs_started=jobs.c.runs_started - 1)
    )
    newest = connection.execute(
        select(schedule_periods.c.timetable, schedule_periods.c.until, jobs.c.cursor, jobs.c.paused_at)
        .join_from(jobs, schedule_periods, schedule_periods.c.id == jobs.c.period_id)
        .where(jobs.c.name == name)
    ).one_or_none()
    if newest is not None and newest.until is not None:
        since = max(now, newest.until, newest.cursor or now)
        paused = newest.paused_at is not None
        _follow(connection, name, since=since, timetable=newest.timetable, paused=paused)


def count_end(connection: Connection, name: str, state: RunState) -> int:
    """Count a run's end towards its job's failures in a row; return how many there are now."""
    said = {"of_job": name}
    if state is RunState.SUCCEEDED:
        connection.execute(_NO_FAILURES, said)
        return 0
    count = connection.execute(_ONE_MORE if state in FAILED_STATES else _FAILURES, said).scalar_one_or_none()
    return count or 0


_MINE = jobs.c.name == bindparam("of_job")
_NO_FAILURES = update(jobs).where(_MINE, jobs.c.consecutive_failures != 0).values(consecutive_failures=0)
_ONE_MORE = (
    update(jobs)
    .where(_MINE)
    .values(consecutive_failures=jobs.c.consecutive_failures + 1)
    .returning(jobs.c.consecutive_failures)
)
_FAILURES = select(jobs.c.consecutive_failures).where(_MINE)


def closed_jobs(connection: Connection, *, now: datetime) -> dict[str, int]:
    """Return how many jobs are paused and how many are held now."""
    row = connection.execute(
        select(
            func.coalesce(func.sum(case((jobs.c.paused_at.is_not(None), 1), else_=0)), 0).label("paused"),
            func.coalesce(func.sum(case((jobs.c.held_until > now, 1), else_=0)), 0).label("held"),
        )
    ).one()
    return {"paused": row.paused, "held": row.held}
