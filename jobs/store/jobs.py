"""What happened to jobs: first sight, cursor, pause, hold, failures in a row. Files say what they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.run import RunState
from jobs.store.tables import jobs

OFF = "off"
_NOT_HELD = dict.fromkeys(("held_until", "opens_at", "held_by", "hold_key", "hold_reason", "probed_at"))


@dataclass(frozen=True, slots=True)
class JobState:
    """One job's row. `cursor` is the newest instant that was decided; nothing up to it is owed."""

    name: str
    first_seen_at: datetime
    cursor: datetime | None = None
    schedule_key: str | None = None
    paused_at: datetime | None = None
    pause_reason: str | None = None
    held_until: datetime | None = None
    consecutive_failures: int = 0


def insert_or_ignore(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT … ON CONFLICT DO NOTHING of the connection's dialect."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def states(connection: Connection) -> dict[str, JobState]:
    """Return every known job's state by name, removed jobs included."""
    rows = connection.execute(select(*(jobs.c[name] for name in JobState.__slots__)))
    return {row.name: JobState(**row._mapping) for row in rows}


def see(connection: Connection, schedules: Mapping[str, str], *, now: datetime) -> dict[str, JobState]:
    """Make rows for jobs seen for the first time; `schedules` maps names to a key of schedule and zone.

    A job is owed nothing from before its first sight, nor, when its schedule changed or it was gone from
    the files or switched off (`OFF`) in between, from before now.
    """
    known = states(connection)
    fresh = [
        {"name": name, "first_seen_at": now, "cursor": now, "schedule_key": key}
        for name, key in schedules.items()
        if name not in known
    ]
    if fresh:
        connection.execute(insert_or_ignore(connection, jobs), fresh)
    gone = [name for name, state in known.items() if name not in schedules and state.schedule_key != OFF]
    if gone:
        connection.execute(update(jobs).where(jobs.c.name.in_(gone)).values(schedule_key=OFF, **_NOT_HELD))
    for name, key in schedules.items():
        if name in known and known[name].schedule_key != key:
            values = {"schedule_key": key, "cursor": now, **_NOT_HELD}
            connection.execute(update(jobs).where(jobs.c.name == name).values(values))
    return {name: state for name, state in states(connection).items() if name in schedules}


def advance(connection: Connection, cursors: Iterable[tuple[str, datetime]]) -> None:
    """Move cursors forward; one that is further already stays where it is."""
    for name, cursor in cursors:
        connection.execute(
            update(jobs)
            .where(jobs.c.name == name, func.coalesce(jobs.c.cursor, jobs.c.first_seen_at) < cursor)
            .values(cursor=cursor)
        )


def count_end(connection: Connection, name: str, state: RunState) -> None:
    """Count a scheduled run's end towards the job's failures in a row."""
    match state:
        case RunState.SUCCEEDED:
            value: object = 0
        case RunState.FAILED | RunState.TIMED_OUT | RunState.ABANDONED:
            value = jobs.c.consecutive_failures + 1
        case _:
            return
    connection.execute(update(jobs).where(jobs.c.name == name).values(consecutive_failures=value))


def closed_jobs(connection: Connection, *, now: datetime) -> dict[str, int]:
    """Return how many jobs are paused and how many are held now."""
    row = connection.execute(
        select(
            func.coalesce(func.sum(case((jobs.c.paused_at.is_not(None), 1), else_=0)), 0).label("paused"),
            func.coalesce(func.sum(case((jobs.c.held_until > now, 1), else_=0)), 0).label("held"),
        )
    ).one()
    return {"paused": row.paused, "held": row.held}
