"""What is due and what becomes of it: a pure function of schedule, cursor, now and policy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jobs.run import Reason, RunState, Trigger
from scheduler.triggers import Schedule

CATCH_UP_WINDOW = timedelta(days=31)
_LEAST_GRACE = timedelta(minutes=2)
_MOST_GRACE = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job's late and missed instants are judged; `misfire_grace_time` None takes half the period.

    A `held` job skips what it would run; with `probes` the newest instant goes through nevertheless.
    """

    misfire_grace_time: timedelta | None = None
    catches_up: bool = True
    paused: bool = False
    held: bool = False
    probes: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one instant, or of `count` consecutive ones from `first` to `instant`."""

    instant: datetime
    state: RunState
    trigger: Trigger
    reason: Reason | None = None
    first: datetime | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Decisions in order of time, the cursor after them, and the next instant (None: never again)."""

    decisions: tuple[Decision, ...]
    cursor: datetime
    next_instant: datetime | None


def plan(
    schedule: Schedule, *, cursor: datetime, now: datetime, watched_since: datetime, policy: Policy
) -> Plan:
    """Decide every instant after `cursor` up to `now`, each exactly once.

    Instants up to `watched_since` fell due while no daemon was up and obey `catches_up`; later ones are
    judged by the grace time. A clock that stands behind the cursor owes nothing.
    """
    decisions = _decisions(schedule, cursor, now, watched_since, policy)
    if policy.held:
        decisions = _held_back(decisions, probes=policy.probes)
    return Plan(tuple(_merged(decisions)), max(cursor, now), schedule.after(max(cursor, now)))


def grace_of(period: timedelta) -> timedelta:
    """Return the default misfire grace time: half the period, within 2 minutes and 2 hours."""
    return min(max(period / 2, _LEAST_GRACE), _MOST_GRACE)


def _instants(
    schedule: Schedule, cursor: datetime, now: datetime
) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield each due instant with the one after it."""
    instant = schedule.after(cursor)
    while instant is not None and instant <= now:
        following = schedule.after(instant)
        yield instant, following
        instant = following


def _decisions(
    schedule: Schedule, cursor: datetime, now: datetime, watched_since: datetime, policy: Policy
) -> Iterator[Decision]:
    horizon = now - CATCH_UP_WINDOW
    for instant, following in _instants(schedule, cursor, now):
        if policy.paused:
            yield Decision(instant, RunState.SKIPPED, Trigger.SCHEDULE, Reason.PAUSED)
        elif instant > watched_since:
            yield _watched(instant, following, now, policy)
        elif instant <= horizon:
            yield Decision(instant, RunState.MISSED, Trigger.CATCH_UP, Reason.WINDOW)
        elif not policy.catches_up:
            yield Decision(instant, RunState.MISSED, Trigger.CATCH_UP, Reason.CATCH_UP_NONE)
        elif following is not None and following <= watched_since:
            yield Decision(instant, RunState.MISSED, Trigger.CATCH_UP, Reason.COALESCED)
        else:
            yield Decision(instant, RunState.QUEUED, Trigger.CATCH_UP)


def _watched(instant: datetime, following: datetime | None, now: datetime, policy: Policy) -> Decision:
    period = following - instant if following is not None else 2 * _MOST_GRACE
    grace = policy.misfire_grace_time or grace_of(period)
    if now - instant > grace:
        return Decision(instant, RunState.MISSED, Trigger.SCHEDULE, Reason.LATE)
    return Decision(instant, RunState.QUEUED, Trigger.SCHEDULE)


def _held_back(decisions: Iterator[Decision], *, probes: bool) -> Iterator[Decision]:
    """Skip what would run; but for the newest instant, where that is the probe."""
    newest: Decision | None = None
    for decision in decisions:
        if newest is not None:
            yield _skipped(newest)
        newest = decision
    if newest is not None:
        yield newest if probes else _skipped(newest)


def _skipped(decision: Decision) -> Decision:
    if decision.state is not RunState.QUEUED:
        return decision
    return replace(decision, state=RunState.SKIPPED, reason=Reason.HELD)


def _merged(decisions: Iterator[Decision]) -> Iterator[Decision]:
    """Join neighbours that will never run and share their reason into one that spans them."""
    held: Decision | None = None
    for decision in decisions:
        if held is not None and _joins(held, decision):
            held = replace(
                held, instant=decision.instant, first=held.first or held.instant, count=held.count + 1
            )
            continue
        if held is not None:
            yield held
        held = decision
    if held is not None:
        yield held


def _joins(held: Decision, decision: Decision) -> bool:
    same = (held.state, held.reason, held.trigger) == (decision.state, decision.reason, decision.trigger)
    return same and decision.state is not RunState.QUEUED
