"""What is due and what becomes of it: a pure function of periods, cursor, now and policy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from jobs.run import Reason, RunState, Trigger
from scheduler.config.settings import CatchUp
from scheduler.lateness import late_until, spared
from scheduler.periods import SECOND, Period, Stretch, Timeline

CATCH_UP_WINDOW = timedelta(days=31)
MOST_CAUGHT_UP = 100
MOST_AT_ONCE = 100
_NO_TIME = timedelta(0)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job's late and missed instants are judged; `misfire_grace_time` None takes half the period.

    `runs_left` is how many runs `max_runs` still allows. A `held` job skips what it would run; with `probes`
    the newest instant goes through nevertheless.
    """

    misfire_grace_time: timedelta | None = None
    catch_up: CatchUp = CatchUp.LATEST
    jitter: timedelta | None = None
    runs_left: int | None = None
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
    """Decisions in order of time, and the cursor after them: all up to it is decided, nothing behind it.

    `next_instant` is the first undecided one, `next_wake` when it falls due: at once, where more was due
    than one look takes. None: never again. `ended`: no run is left of `max_runs` when those of this plan
    have started. `ahead`: how far the cursor is before `now`, which a clock set back leaves behind.
    """

    decisions: tuple[Decision, ...]
    cursor: datetime
    next_instant: datetime | None = None
    next_wake: datetime | None = None
    ended: bool = False
    ahead: timedelta = _NO_TIME


@dataclass(frozen=True, slots=True)
class _Zone:
    """What becomes of the instants after the zone before, up to `until`; without a reason they start."""

    until: datetime
    trigger: Trigger
    reason: Reason | None = None


def plan(
    periods: Sequence[Period],
    *,
    job: str,
    cursor: datetime,
    now: datetime,
    watched_since: datetime,
    policy: Policy,
) -> Plan:
    """Decide every instant after `cursor` that has fallen due by `now`, each exactly once.

    Those due up to `watched_since` fell due while no daemon was up, and obey `catch_up`; later ones are
    judged by the grace time. A clock behind the cursor owes nothing. The decisions are few, whatever is
    due: at most `MOST_CAUGHT_UP` + `MOST_AT_ONCE` starts, and the spans between them.
    """
    ahead = max(cursor - now, _NO_TIME)
    if policy.runs_left is not None and policy.runs_left <= 0:
        return Plan((), cursor, ended=True, ahead=ahead)
    line = Timeline.of(periods, cursor=cursor, job=job, jitter=policy.jitter or _NO_TIME)
    end = max(cursor, line.fallen_by(now))
    decisions: tuple[Decision, ...] = ()
    first = line.after(cursor)
    if first is not None and first <= end:
        zones = _zones(line, cursor=cursor, now=now, end=end, watched_since=watched_since, policy=policy)
        end = zones[-1].until
        decisions = tuple(_decided(line, cursor, zones))
    last = _last_run(decisions, policy.runs_left)
    if last is not None:
        return Plan(decisions[: last + 1], decisions[last].instant, ended=True, ahead=ahead)
    return _awaiting(line, decisions, end, ahead)


def _last_run(decisions: tuple[Decision, ...], runs_left: int | None) -> int | None:
    """Return the number of the decision that starts the last run of `max_runs`, if it is among them."""
    starts = [number for number, each in enumerate(decisions) if each.state is RunState.QUEUED]
    return starts[runs_left - 1] if runs_left is not None and len(starts) >= runs_left else None


def _awaiting(line: Timeline, decisions: tuple[Decision, ...], cursor: datetime, ahead: timedelta) -> Plan:
    upcoming = line.after(cursor)
    wake = line.due(upcoming) if upcoming is not None else None
    return Plan(decisions, cursor, upcoming, wake, ahead=ahead)


def _zones(
    line: Timeline,
    *,
    cursor: datetime,
    now: datetime,
    end: datetime,
    watched_since: datetime,
    policy: Policy,
) -> list[_Zone]:
    """Return what becomes of the instants after the cursor, zone by zone; the last one ends this look."""
    missed = min(max(line.fallen_by(watched_since), cursor), end)
    zones = [
        *_missed_zones(line, max(cursor, min(now - CATCH_UP_WINDOW, missed)), missed, policy.catch_up),
        *_watched_zones(line, missed, end, now=now, policy=policy),
    ]
    return _held_back(line, zones, probes=policy.probes) if policy.held else zones


def _missed_zones(line: Timeline, horizon: datetime, until: datetime, catch_up: CatchUp) -> Iterator[_Zone]:
    """Yield what becomes of what nobody watched: too old, left out, caught up."""
    yield _Zone(horizon, Trigger.CATCH_UP, Reason.WINDOW)
    match catch_up:
        case CatchUp.LATEST:
            reason, most = Reason.COALESCED, 1
        case CatchUp.ALL:
            reason, most = Reason.CATCH_UP_CAP, MOST_CAUGHT_UP
        case CatchUp.NONE:
            reason, most = Reason.CATCH_UP_NONE, 0
        case _:
            assert_never(catch_up)
    yield _Zone(_before_the_newest(line, horizon, until, most), Trigger.CATCH_UP, reason)
    yield _Zone(until, Trigger.CATCH_UP)


def _before_the_newest(line: Timeline, since: datetime, until: datetime, most: int) -> datetime:
    """Return the moment before the newest `most` instants between two moments: `since` if there are fewer."""
    reached = until
    for _ in range(most):
        newest = line.latest(reached)
        if newest is None or newest <= since:
            return since
        reached = newest - SECOND
    return reached


def _watched_zones(
    line: Timeline, since: datetime, end: datetime, *, now: datetime, policy: Policy
) -> Iterator[_Zone]:
    """Yield what becomes of what fell due before a daemon's eyes: late, or in time; so many at once."""
    late = min(max(since, late_until(line, now=now, grace=policy.misfire_grace_time)), end)
    if policy.misfire_grace_time is None:
        for instant in spared(line, since, late, now=now):
            yield _Zone(instant - SECOND, Trigger.SCHEDULE, Reason.LATE)
            yield _Zone(instant, Trigger.SCHEDULE)
    yield _Zone(late, Trigger.SCHEDULE, Reason.LATE)
    yield _Zone(end if policy.held else _taken(line, late, end), Trigger.SCHEDULE)


def _taken(line: Timeline, since: datetime, end: datetime) -> datetime:
    """Return the moment up to which one look starts what is in time."""
    reached: datetime | None = since
    for _ in range(MOST_AT_ONCE):
        reached = line.start_after(reached) if reached is not None else None
        if reached is None or reached > end:
            return end
    return reached or end


def _held_back(line: Timeline, zones: list[_Zone], *, probes: bool) -> list[_Zone]:
    """Skip what would start; but for the newest instant, where that is the probe."""
    held = [_Zone(zone.until, zone.trigger, zone.reason or Reason.HELD) for zone in zones]
    newest = line.latest(zones[-1].until) if probes else None
    number = next((n for n, zone in enumerate(zones) if newest is not None and newest <= zone.until), None)
    if newest is None or number is None or zones[number].reason is not None:
        return held
    trigger = zones[number].trigger
    probe = [_Zone(newest - SECOND, trigger, Reason.HELD), _Zone(newest, trigger)]
    return [*held[:number], *probe, *held[number:]]


def _decided(line: Timeline, cursor: datetime, zones: list[_Zone]) -> Iterator[Decision]:
    """Yield the decisions of all stretches, in order."""
    for stretch in line.stretches:
        if stretch.paused:
            yield from _span(stretch, cursor, _Zone(zones[-1].until, Trigger.SCHEDULE, Reason.PAUSED))
            continue
        since = cursor
        for zone in zones:
            yield from _started(stretch, since, zone) if zone.reason is None else _span(stretch, since, zone)
            since = max(since, zone.until)


def _started(stretch: Stretch, since: datetime, zone: _Zone) -> Iterator[Decision]:
    instant = stretch.after(since)
    while instant is not None and instant <= zone.until:
        yield Decision(instant, RunState.QUEUED, zone.trigger)
        instant = stretch.after(instant)


def _span(stretch: Stretch, since: datetime, zone: _Zone) -> Iterator[Decision]:
    """Yield the one decision for what never runs, if anything is there."""
    part = stretch.clipped(since, zone.until)
    count = stretch.schedule.count(*part) if part is not None else 0
    if part is None or count == 0:
        return
    first, last = stretch.after(part[0]), stretch.latest(part[1])
    assert first is not None
    assert last is not None
    state = RunState.SKIPPED if zone.reason in (Reason.PAUSED, Reason.HELD) else RunState.MISSED
    yield Decision(last, state, zone.trigger, zone.reason, first if count > 1 else None, count)
