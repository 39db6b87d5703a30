"""Held jobs: every target is closed until a known time, so nothing is asked before; but for a probe."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, func, or_, select, update

from jobs.run import SCHEDULED_TRIGGERS, ClaimedRun, Hold, Reason, RunState, Trigger
from jobs.store.jobs import insert_or_ignore
from jobs.store.tables import jobs, runs

PROBE_EVERY = timedelta(minutes=5)
_HELD = ("name", "held_until", "held_by", "hold_key", "hold_reason", "probed_at")
_NOTHING = dict.fromkeys(_HELD[1:])


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job's hold: until when, by which run, and when a probe of what is closed last went through."""

    name: str
    held_until: datetime
    held_by: int
    hold_key: str
    hold_reason: str
    probed_at: datetime


def held(connection: Connection) -> dict[str, HeldJob]:
    """Return the jobs that are held, by name, also those whose time has come."""
    rows = connection.execute(select(*(jobs.c[name] for name in _HELD)).where(jobs.c.held_until.is_not(None)))
    return {row.name: HeldJob(**row._mapping) for row in rows}


def hold(connection: Connection, run: ClaimedRun, hold: Hold, *, now: datetime) -> bool:
    """Hold a run's job; say whether nothing held a job for the same closed credentials before.

    A hold that stands already is never shortened, and keeps the time of its last probe.
    """
    known = held(connection)
    first = all(each.hold_key != hold.closed or each.held_until <= now for each in known.values())
    connection.execute(
        insert_or_ignore(connection, jobs).values(name=run.job, first_seen_at=run.scheduled_for)
    )
    standing = known.get(run.job)
    until = max(hold.until, standing.held_until) if standing else hold.until
    connection.execute(
        update(jobs)
        .where(jobs.c.name == run.job)
        .values(
            held_until=until,
            held_by=run.id,
            hold_key=hold.closed,
            hold_reason=hold.reason,
            probed_at=func.coalesce(jobs.c.probed_at, now),
        )
    )
    return first


def extend(connection: Connection, name: str, until: datetime) -> None:
    """Hold a held job for longer: what closes it has been closed for longer."""
    connection.execute(
        update(jobs).where(jobs.c.name == name, jobs.c.held_until < until).values(held_until=until)
    )


def note_probes(connection: Connection, keys: Collection[str], *, now: datetime) -> None:
    """Note that a probe goes through: for every job that the same credentials hold."""
    if keys:
        connection.execute(update(jobs).where(jobs.c.hold_key.in_(keys)).values(probed_at=now))


def release(
    connection: Connection, seen: HeldJob, *, makes_up: bool, instance_id: int, now: datetime
) -> tuple[bool, ClaimedRun | None]:
    """End a hold; say whether this process has ended it, and return the run that makes up for it.

    With `makes_up`, one run (trigger `retry`) is claimed for the newest instant that the hold has cost.
    """
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.name == seen.name, jobs.c.held_until == seen.held_until, jobs.c.held_by == seen.held_by)
        .values(**_NOTHING)
    )
    if changed.rowcount != 1:
        return False, None
    return True, _make_up(connection, seen, instance_id, now) if makes_up else None


def _make_up(connection: Connection, seen: HeldJob, instance_id: int, now: datetime) -> ClaimedRun | None:
    parent = connection.execute(
        select(runs.c.id, runs.c.scheduled_for)
        .where(
            runs.c.job == seen.name,
            runs.c.trigger.in_((*SCHEDULED_TRIGGERS, Trigger.RETRY)),
            or_(
                runs.c.id == seen.held_by,
                and_(runs.c.id > seen.held_by, runs.c.reason == str(Reason.HELD)),
            ),
        )
        .order_by(runs.c.scheduled_for.desc(), runs.c.id.desc())
        .limit(1)
    ).one_or_none()
    if parent is None:
        return None
    row = {
        "job": seen.name,
        "scheduled_for": parent.scheduled_for,
        "trigger": Trigger.RETRY,
        "parent_id": parent.id,
        "state": RunState.QUEUED,
        "instance_id": instance_id,
        "created_at": now,
    }
    run_id = connection.execute(runs.insert().values(row).returning(runs.c.id)).scalar_one()
    return ClaimedRun(run_id, seen.name, parent.scheduled_for, Trigger.RETRY)
