"""The outbox: written with the ends of runs, claimed by one sender at a time, settled under a fence."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self, assert_never

from sqlalchemy import ColumnElement, Connection, and_, func, insert, literal_column, or_, select, update

from jobs.delivery_state import DeliverOn, DeliveryState
from jobs.run import FAILED_STATES, ClaimedRun, Consequences, Outcome, RunState, Trigger
from jobs.store import instances as instance_verbs
from jobs.store.jobs import in_portions
from jobs.store.tables import deliveries, instances, runs

TITLE_WAIT = timedelta(seconds=60)
PORTION = 100
BESIDE_EACH_OTHER = 64  # so many of a job's newest answers are asked which of them ended last
_SKEW = timedelta(minutes=1)  # what clocks of several hosts differ by counts for nothing
_FOR_WHO_ASKED = (Trigger.ASK, Trigger.DRILL)
_PENDING = deliveries.c.state == literal_column(f"'{DeliveryState.PENDING}'")
"""Written out, so that the index of what is pending is known to do when a statement is prepared."""

_FREE = dict.fromkeys(("sending_by", "sending_until"))


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that nobody sends and whose time has come. `attempts` is the fence of its claim."""

    id: int
    target: str
    attempts: int


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that is ours to send, of a run or of an alert. `attempts` is the fence of its settling.

    `key` is the same at every attempt, so that the receiver can tell. `failures` came before this attempt.
    """

    id: int
    target: str
    key: str
    attempts: int
    failures: int
    run_id: int | None
    alert_id: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has become of an attempt; made by one of the constructors below."""

    state: DeliveryState
    why: str | None = None
    again_at: datetime | None = None

    @classmethod
    def delivered(cls) -> Self:
        """The receiver has it."""
        return cls(DeliveryState.DELIVERED)

    @classmethod
    def retried(cls, why: str, *, again_at: datetime) -> Self:
        """It has failed, and is tried again."""
        return cls(DeliveryState.PENDING, why, again_at)

    @classmethod
    def failed(cls, why: str) -> Self:
        """It has failed for good, until somebody asks for it again."""
        return cls(DeliveryState.FAILED, why)


def enqueue(
    connection: Connection, run: ClaimedRun, outcome: Outcome, consequences: Consequences, *, now: datetime
) -> None:
    """Put into the outbox what is to be told of a run's end, in the transaction that writes that end.

    What is of a drill, or was asked for with `ask`, goes nowhere; nor does an end that nobody waits for. With
    a title to be sought it waits for that, at most `TITLE_WAIT`.
    """
    if not consequences.deliver or run.trigger in _FOR_WHO_ASKED:
        return
    wanted = [each.to for each in consequences.deliver if _fits(connection, each.on, run, outcome, now)]
    if not wanted:
        return
    waits = consequences.titled and outcome.state is RunState.SUCCEEDED
    row = {
        "run_id": run.id,
        "state": DeliveryState.PENDING,
        "next_attempt_at": now + TITLE_WAIT if waits else now,
        "created_at": now,
    }
    rows = [{**row, "target": to, "idempotency_key": new_key()} for to in dict.fromkeys(wanted)]
    connection.execute(insert(deliveries), rows)


def new_key() -> str:
    """Return a key by which a receiver knows a delivery again."""
    return secrets.token_hex(16)


def _fits(connection: Connection, on: DeliverOn, run: ClaimedRun, outcome: Outcome, now: datetime) -> bool:
    succeeded = outcome.state is RunState.SUCCEEDED and not outcome.silent
    failed = outcome.state in FAILED_STATES
    match on:
        case DeliverOn.SUCCESS:
            return succeeded
        case DeliverOn.FAILURE:
            return failed
        case DeliverOn.ALWAYS:
            return succeeded or failed
        case DeliverOn.CHANGED:
            return succeeded and _answer_before(connection, run, now) != outcome.output
        case _:
            assert_never(on)


def _answer_before(connection: Connection, run: ClaimedRun, now: datetime) -> str | None:
    """Return the answer of the job's last success that was not silent, None where there is none.

    The last one to end is meant: of so many runs beside each other a later one may have ended earlier. One
    that ended after `now` has an end of a clock that was wrong, and counts for nothing.
    """
    told = (
        select(runs.c.id)
        .where(
            runs.c.job == run.job,
            runs.c.id != run.id,
            runs.c.state == RunState.SUCCEEDED,
            runs.c.trigger != Trigger.DRILL,
            runs.c.silent.is_(False),
        )
        .order_by(runs.c.id.desc())
        .limit(BESIDE_EACH_OTHER)
    )
    return connection.execute(
        select(runs.c.output)
        .where(runs.c.id.in_(told), runs.c.finished_at <= now)
        .order_by(runs.c.finished_at.desc(), runs.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()


def wait_no_more(connection: Connection, run_id: int, *, now: datetime) -> None:
    """Let what a run has to deliver go now: its title is there, or nobody has made one."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.run_id == run_id, _PENDING, deliveries.c.attempts == 0)
        .values(next_attempt_at=now)
    )


def due(
    connection: Connection,
    *,
    instance_id: int,
    now: datetime,
    known: Collection[str] | None = None,
    busy: Collection[str] = (),
    run_id: int | None = None,
    most: int = PORTION,
) -> dict[str, list[Due]]:
    """Return what may be sent, by target, the longest due first, so many of each target at most.

    What somebody sends is left out until his time is over or his process gone; so are the targets in `busy`,
    to which this process sends: what else stands in its name was left by it. With `known`: only to these
    targets; with `run_id`: only of that run.
    """
    free = _is_free(connection, instance_id, now)
    order = (deliveries.c.next_attempt_at, deliveries.c.id)
    place = func.row_number().over(partition_by=deliveries.c.target, order_by=order).label("place")
    found = select(deliveries.c.id, deliveries.c.target, deliveries.c.attempts, place).where(
        _PENDING, deliveries.c.next_attempt_at <= now, free, deliveries.c.target.not_in(busy)
    )
    if known is not None:
        found = found.where(deliveries.c.target.in_(known))
    if run_id is not None:
        found = found.where(deliveries.c.run_id == run_id)
    rows = found.subquery()
    by_target: dict[str, list[Due]] = {}
    for row in connection.execute(select(rows).where(rows.c.place <= most).order_by(rows.c.place)):
        by_target.setdefault(row.target, []).append(Due(row.id, row.target, row.attempts))
    return by_target


def _is_free(connection: Connection, instance_id: int, now: datetime) -> ColumnElement[bool]:
    """Say which deliveries nobody but this process sends."""
    return or_(
        deliveries.c.sending_by.is_(None),
        deliveries.c.sending_until <= now,
        deliveries.c.sending_by.in_([instance_id, *_gone_senders(connection, now)]),
    )


def left_alone(
    connection: Connection, known: Collection[str], *, instance_id: int, now: datetime
) -> frozenset[str]:
    """Return the targets beside `known` for which something is due, and to which no other process sends.

    Nor has one tried to: nothing waits there for the next try after a failure.
    """
    waits = and_(deliveries.c.failures > 0, deliveries.c.next_attempt_at > now)
    sent_to = select(deliveries.c.target).where(_PENDING, or_(~_is_free(connection, instance_id, now), waits))
    found = select(deliveries.c.target).where(
        _PENDING,
        deliveries.c.next_attempt_at <= now,
        deliveries.c.target.not_in(known),
        deliveries.c.target.not_in(sent_to),
    )
    return frozenset(connection.execute(found.distinct()).scalars())


def _gone_senders(connection: Connection, now: datetime) -> list[int]:
    """Return the processes that were sending and are there no more."""
    columns = ("id", "host", "pid", "pid_started", "heartbeat_at", "stopped_at")
    senders = select(deliveries.c.sending_by).where(_PENDING, deliveries.c.sending_by.is_not(None)).distinct()
    found = connection.execute(
        select(*(instances.c[name] for name in columns)).where(instances.c.id.in_(senders))
    ).mappings()
    return [row["id"] for row in found if instance_verbs.is_gone(row, now=now)]


def next_due(connection: Connection, *, now: datetime) -> datetime | None:
    """Return when the next delivery falls due that is not due yet."""
    query = select(func.min(deliveries.c.next_attempt_at)).where(_PENDING, deliveries.c.next_attempt_at > now)
    found: datetime | None = connection.execute(query).scalar_one()
    return found


def claim(
    connection: Connection, seen: Due, *, instance_id: int, until: datetime, now: datetime
) -> ClaimedDelivery | None:
    """Take a delivery for this process; None where another has taken it, or it is not due any more.

    Nobody else takes it before `until` while this process lives.
    """
    row = connection.execute(
        update(deliveries)
        .where(
            deliveries.c.id == seen.id,
            _PENDING,
            deliveries.c.attempts == seen.attempts,
            deliveries.c.next_attempt_at <= now,
        )
        .values(sending_by=instance_id, sending_until=until, attempts=deliveries.c.attempts + 1)
        .returning(deliveries)
    ).one_or_none()
    if row is None:
        return None
    return ClaimedDelivery(
        row.id, row.target, row.idempotency_key, row.attempts, row.failures, row.run_id, row.alert_id
    )


def settle(connection: Connection, claimed: ClaimedDelivery, verdict: Verdict, *, now: datetime) -> bool:
    """Write what has become of an attempt; returns False where another process has made one since."""
    final = verdict.state is not DeliveryState.PENDING
    failed = 0 if verdict.state is DeliveryState.DELIVERED else 1
    changed = connection.execute(
        update(deliveries)
        .where(deliveries.c.id == claimed.id, _PENDING, deliveries.c.attempts == claimed.attempts)
        .values(
            state=verdict.state,
            failures=deliveries.c.failures + failed,
            last_error=verdict.why,
            next_attempt_at=verdict.again_at,
            finished_at=now if final else None,
            **_FREE,
        )
    )
    return changed.rowcount == 1


def give_back(connection: Connection, instance_id: int, *, only: ClaimedDelivery | None = None) -> int:
    """Let others send what this process was sending, or `only` that; return how many they are."""
    mine = and_(_PENDING, deliveries.c.sending_by == instance_id)
    if only is not None:
        mine = and_(mine, deliveries.c.id == only.id, deliveries.c.attempts == only.attempts)
    return connection.execute(update(deliveries).where(mine).values(**_FREE)).rowcount


def pull_in(connection: Connection, *, longest: Sequence[timedelta], now: datetime) -> int:
    """Let nothing wait for a time that only a clock which was wrong has set; return how many were waiting so.

    After n failures nothing waits longer than the n-th of `longest`, the last of them for every one after it;
    what was written in the future is due now.
    """
    later = and_(_PENDING, deliveries.c.next_attempt_at > now)
    future = and_(later, deliveries.c.created_at > now + _SKEW)
    pulled = connection.execute(update(deliveries).where(future).values(next_attempt_at=now)).rowcount
    for failures, wait in enumerate(longest):
        last = failures == len(longest) - 1
        of_these = deliveries.c.failures >= failures if last else deliveries.c.failures == failures
        too_late = and_(_PENDING, of_these, deliveries.c.next_attempt_at > now + wait)
        nearer = update(deliveries).where(too_late).values(next_attempt_at=now + wait)
        pulled += connection.execute(nearer).rowcount
    return pulled


def hasten(connection: Connection, targets: Collection[str], *, now: datetime) -> int:
    """Let what has failed at these targets wait for its next try no longer; return how many were waiting.

    They keep their failures. What waits for a title goes on waiting, and what is being sent is left alone.
    """
    waits = and_(_PENDING, deliveries.c.failures > 0, deliveries.c.next_attempt_at > now)
    hastened = 0
    for portion in in_portions(targets):
        these = and_(waits, deliveries.c.sending_by.is_(None), deliveries.c.target.in_(portion))
        hastened += connection.execute(update(deliveries).where(these).values(next_attempt_at=now)).rowcount
    return hastened


def ask_again(connection: Connection, ids: Collection[int], *, now: datetime) -> list[int]:
    """Have these sent now that have failed, with all their tries and the same key; return which they were.

    One that waits for its next try does not wait any longer, unless somebody is just sending it.
    """
    again = or_(deliveries.c.state == DeliveryState.FAILED, and_(_PENDING, deliveries.c.sending_by.is_(None)))
    asked = update(deliveries).values(
        state=DeliveryState.PENDING, failures=0, next_attempt_at=now, finished_at=None
    )
    found: list[int] = []
    for portion in in_portions(ids):
        these = asked.where(deliveries.c.id.in_(portion), again).returning(deliveries.c.id)
        found += connection.execute(these).scalars()
    return sorted(found)


def failed(connection: Connection, *, target: str | None = None) -> list[int]:
    """Return the deliveries that have failed for good, oldest first."""
    query = select(deliveries.c.id).where(deliveries.c.state == DeliveryState.FAILED)
    if target is not None:
        query = query.where(deliveries.c.target == target)
    return list(connection.execute(query.order_by(deliveries.c.id)).scalars())
