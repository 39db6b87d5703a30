"""Held jobs: every target is closed until a known time, so nothing is asked before; but for a probe."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, exists, func, or_, select, update

from jobs.run import COUNTING_TRIGGERS, HOLD_MARGIN, ClaimedRun, Hold, Reason, RunState, Trigger
from jobs.store.jobs import insert_or_ignore
from jobs.store.tables import jobs, runs

PROBE_EVERY = timedelta(minutes=5)
_LONGEST_MARGIN = 64
_HELD = ("name", "held_until", "opens_at", "held_by", "hold_key", "hold_reason", "probed_at")
_OF_THE_SCHEDULE = (*COUNTING_TRIGGERS, Trigger.RETRY)
_NEVER_RAN = (RunState.SKIPPED, RunState.MISSED)


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job's hold: until when, by which run, and when a probe of what is closed last went through.

    `opens_at` is when time opens what is closed; None when somebody has opened it already. The names in
    `hold_key` are the credentials that are closed.
    """

    name: str
    held_until: datetime
    opens_at: datetime | None
    held_by: int
    hold_key: str
    hold_reason: str
    probed_at: datetime


@dataclass(frozen=True, slots=True)
class NewHold:
    """A hold that was just written; `first` is False where the same credentials were told of already."""

    until: datetime
    first: bool


def held(connection: Connection) -> dict[str, HeldJob]:
    """Return the jobs that are held, by name, also those whose time has come."""
    rows = connection.execute(
        select(*(jobs.c[name] for name in _HELD)).where(
            jobs.c.hold_key.is_not(None), jobs.c.held_until.is_not(None)
        )
    )
    return {row.name: HeldJob(**row._mapping) for row in rows}


def hold(connection: Connection, run: ClaimedRun, hold: Hold, *, now: datetime) -> NewHold:
    """Hold a run's job, and say whether these closed credentials are news: until one of them answers.

    A hold that stands already is never shortened, and keeps the run that is to be made up for. What was
    made up for in vain is held for longer each time.
    """
    told = connection.execute(select(exists().where(jobs.c.hold_key == hold.closed))).scalar_one()
    connection.execute(
        insert_or_ignore(connection.dialect.name, jobs).values(name=run.job, first_seen_at=run.scheduled_for)
    )
    standing = held(connection).get(run.job)
    until = hold.opens_at + HOLD_MARGIN * min(2 ** _made_up(connection, run), _LONGEST_MARGIN)
    by_hand = run.trigger not in _OF_THE_SCHEDULE
    values = {
        "held_until": max(until, standing.held_until) if standing else until,
        "opens_at": max(hold.opens_at, standing.opens_at or hold.opens_at) if standing else hold.opens_at,
        "held_by": standing.held_by if standing and by_hand else run.id,
        "hold_key": hold.closed,
        "hold_reason": hold.reason,
        "probed_at": standing.probed_at if standing else now,
    }
    connection.execute(update(jobs).where(jobs.c.name == run.job).values(values))
    return NewHold(values["held_until"], not told)


def _made_up(connection: Connection, run: ClaimedRun) -> int:
    """Count the runs that were to make up for the same instant."""
    return connection.execute(
        select(func.count())
        .select_from(runs)
        .where(
            runs.c.job == run.job,
            runs.c.scheduled_for == run.scheduled_for,
            runs.c.trigger == Trigger.RETRY,
        )
    ).scalar_one()


def extend(connection: Connection, name: str, opens_at: datetime) -> None:
    """Hold a held job for longer: what closes it has been closed for longer."""
    until = opens_at + HOLD_MARGIN
    connection.execute(
        update(jobs)
        .where(jobs.c.name == name, jobs.c.held_until < until)
        .values(held_until=until, opens_at=opens_at)
    )


def open_up(connection: Connection, opened: Collection[tuple[str, str]], *, now: datetime) -> None:
    """End the holds for these (provider, label) credentials: one of them works again, or is to be tried.

    The next time they close is news.
    """
    names = {f"{provider}/{label}" for provider, label in opened}
    known = connection.execute(
        select(jobs.c.name, jobs.c.hold_key, jobs.c.held_until).where(jobs.c.hold_key.is_not(None))
    ).all()
    for name, key, held_until in known:
        if names.isdisjoint(each.partition(" ")[0] for each in key.split(", ")):
            continue
        values = {"hold_key": None} if held_until is None else {"held_until": now, "opens_at": None}
        connection.execute(update(jobs).where(jobs.c.name == name).values(values))


def note_probe(connection: Connection, seen: HeldJob, *, now: datetime) -> bool:
    """Note that a probe goes through, for every job that the same credentials hold; False when one went."""
    mine = and_(jobs.c.hold_key == seen.hold_key, jobs.c.held_until.is_not(None))
    newest = connection.execute(select(func.max(jobs.c.probed_at)).where(mine)).scalar_one()
    if newest is None or now - newest < PROBE_EVERY:
        return False
    connection.execute(update(jobs).where(mine).values(probed_at=now))
    return True


def release(
    connection: Connection, seen: HeldJob, *, makes_up: bool, instance_id: int, now: datetime
) -> tuple[bool, ClaimedRun | None]:
    """End a hold; say whether this process has ended it, and return the run that makes up for it.

    With `makes_up`, one run (trigger `retry`) is claimed for the newest instant that the hold has cost; a job
    that is at work meanwhile stays held until it is not.
    """
    here = and_(
        jobs.c.name == seen.name, jobs.c.held_until == seen.held_until, jobs.c.held_by == seen.held_by
    )
    if makes_up and _is_at_work(connection, seen.name):
        return False, None
    nothing = dict.fromkeys(("held_until", "opens_at", "held_by", "hold_reason", "probed_at"))
    if seen.opens_at is None:
        nothing["hold_key"] = None
    paused = select(jobs.c.paused_at).where(jobs.c.name == seen.name)
    wanted = makes_up and connection.execute(paused).scalar_one_or_none() is None
    if connection.execute(update(jobs).where(here).values(nothing)).rowcount != 1:
        return False, None
    return True, _make_up(connection, seen, instance_id, now) if wanted else None


def _is_at_work(connection: Connection, name: str) -> bool:
    open_runs = exists().where(runs.c.job == name, runs.c.finished_at.is_(None))
    return bool(connection.execute(select(open_runs)).scalar_one())


def _make_up(connection: Connection, seen: HeldJob, instance_id: int, now: datetime) -> ClaimedRun | None:
    lost = or_(runs.c.id == seen.held_by, and_(runs.c.id > seen.held_by, runs.c.reason == str(Reason.HELD)))
    parent = connection.execute(
        select(runs.c.id, runs.c.scheduled_for)
        .where(runs.c.job == seen.name, runs.c.trigger.in_(_OF_THE_SCHEDULE), lost)
        .order_by(runs.c.scheduled_for.desc(), runs.c.id.desc())
        .limit(1)
    ).one_or_none()
    if parent is None or _was_served(connection, seen, parent.scheduled_for):
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


def _was_served(connection: Connection, seen: HeldJob, instant: datetime) -> bool:
    """Say whether a newer instant has its run already: nothing older is made up for then."""
    newer = exists().where(
        runs.c.job == seen.name,
        runs.c.id > seen.held_by,
        runs.c.scheduled_for > instant,
        runs.c.trigger.in_(COUNTING_TRIGGERS),
        runs.c.state.not_in(_NEVER_RAN),
    )
    return bool(connection.execute(select(newer)).scalar_one())
