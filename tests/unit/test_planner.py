"""What becomes of each due instant: decided exactly once, whenever one looks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.run import Reason, RunState, Trigger
from scheduler.planner import CATCH_UP_WINDOW, Decision, Plan, Policy, grace_of, plan
from scheduler.triggers import Schedule, parse_schedule

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USUAL = Policy()


def schedule(line: str = "0 * * * *", zone: str = "UTC") -> Schedule:
    """Return a line's schedule."""
    return parse_schedule(line, ZoneInfo(zone), now=NOW - 40 * DAY).anchored(NOW - 40 * DAY)


def look(
    *,
    cursor: datetime,
    now: datetime = NOW,
    watched_since: datetime | None = None,
    policy: Policy = USUAL,
    line: str = "0 * * * *",
) -> Plan:
    """Plan an hourly job; a daemon has been watching since the cursor, unless told otherwise."""
    since = cursor if watched_since is None else watched_since
    return plan(schedule(line), cursor=cursor, now=now, watched_since=since, policy=policy)


def what(made: Plan) -> list[tuple[str, str | None, int]]:
    """Return state, reason and count of each decision."""
    return [(each.state, each.reason, each.count) for each in made.decisions]


def test_an_instant_that_has_just_come_is_started() -> None:
    """With the schedule as its trigger, and the next one known."""
    made = look(cursor=NOW - MINUTE)

    assert made.decisions == (Decision(NOW, RunState.QUEUED, Trigger.SCHEDULE),)
    assert (made.cursor, made.next_instant) == (NOW, NOW + HOUR)


def test_before_the_instant_nothing_is_decided() -> None:
    """Not even a microsecond before."""
    made = look(cursor=NOW - MINUTE, now=NOW - timedelta(microseconds=1))

    assert made.decisions == ()
    assert made.next_instant == NOW


def test_an_instant_behind_its_grace_time_is_late() -> None:
    """Half the period, here half an hour."""
    assert what(look(cursor=NOW - MINUTE, now=NOW + 30 * MINUTE)) == [("queued", None, 1)]
    assert what(look(cursor=NOW - MINUTE, now=NOW + 31 * MINUTE)) == [("missed", "late", 1)]


def test_a_jobs_own_grace_time_counts_instead() -> None:
    """`misfire_grace_time`."""
    strict = Policy(misfire_grace_time=MINUTE)

    assert what(look(cursor=NOW - MINUTE, now=NOW + 2 * MINUTE, policy=strict)) == [("missed", "late", 1)]


@pytest.mark.parametrize(
    ("period", "grace"), [(MINUTE, 2 * MINUTE), (HOUR, 30 * MINUTE), (DAY, 2 * HOUR), (2 * HOUR, HOUR)]
)
def test_the_usual_grace_time_is_half_the_period_within_bounds(period: timedelta, grace: timedelta) -> None:
    """Between two minutes and two hours."""
    assert grace_of(period) == grace


def test_of_what_was_missed_while_no_daemon_was_up_the_newest_is_caught_up() -> None:
    """The others are one row that spans them."""
    made = look(cursor=NOW - 10 * HOUR - MINUTE, now=NOW + MINUTE, watched_since=NOW + MINUTE)

    assert what(made) == [("missed", "coalesced", 10), ("queued", None, 1)]
    span, newest = made.decisions
    assert (span.first, span.instant) == (NOW - 10 * HOUR, NOW - HOUR)
    assert (newest.instant, newest.trigger) == (NOW, Trigger.CATCH_UP)


def test_catching_up_can_be_declined() -> None:
    """`catch_up: none`."""
    none = Policy(catches_up=False)

    made = look(cursor=NOW - 3 * HOUR, watched_since=NOW, policy=none)

    assert what(made) == [("missed", "catch_up_none", 3)]


def test_what_is_older_than_the_window_is_missed_for_that_reason() -> None:
    """31 days; the rest is coalesced."""
    made = look(cursor=NOW - 35 * DAY, watched_since=NOW)

    assert what(made) == [
        ("missed", "window", 4 * 24),
        ("missed", "coalesced", 31 * 24 - 1),
        ("queued", None, 1),
    ]
    assert made.decisions[0].instant == NOW - CATCH_UP_WINDOW


def test_a_paused_job_skips_what_comes() -> None:
    """One row for all of it."""
    made = look(cursor=NOW - 5 * HOUR, policy=Policy(paused=True))

    assert what(made) == [("skipped", "paused", 5)]


def test_a_late_instant_does_not_hide_the_next_one() -> None:
    """A daemon that planned too late runs what is still in time."""
    made = look(cursor=NOW - 3 * HOUR)

    assert what(made) == [("missed", "late", 2), ("queued", None, 1)]


def test_a_clock_behind_the_cursor_owes_nothing() -> None:
    """What was decided stays decided."""
    made = look(cursor=NOW + 5 * HOUR, now=NOW, watched_since=NOW - HOUR)

    assert made.decisions == ()
    assert (made.cursor, made.next_instant) == (NOW + 5 * HOUR, NOW + 6 * HOUR)


def test_a_schedule_that_has_ended_has_no_next_instant() -> None:
    """`at T` is due once."""
    made = look(cursor=NOW - HOUR, line="at 2026-09-04T07:30")

    assert len(made.decisions) == 1
    assert made.next_instant is None


def expanded(decision: Decision, due: Schedule) -> list[datetime]:
    """Return the instants that a decision stands for."""
    first = decision.first or decision.instant
    found = [first]
    while found[-1] < decision.instant:
        following = due.after(found[-1])
        assert following is not None
        found.append(following)
    assert len(found) == decision.count
    return found


@settings(max_examples=100, deadline=None)
@given(
    line=st.sampled_from(["*/10 * * * *", "30 2 * * *", "every 7m", "15 1-3 * * *", "at 2026-10-25T02:30"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    start=st.sampled_from(["2026-03-28", "2026-10-03", "2026-10-24", "2026-06-01"]),
    steps=st.lists(st.integers(-3600, 30000), min_size=1, max_size=25),
    watched=st.integers(0, 100_000),
    paused=st.booleans(),
    catches_up=st.booleans(),
)
def test_every_instant_is_decided_exactly_once_however_one_looks(
    line: str, zone: str, start: str, steps: list[int], watched: int, paused: bool, catches_up: bool
) -> None:
    """Any split of the time axis, clocks that step back, restarts in between: same instants, in order."""
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    due = parse_schedule(line, ZoneInfo(zone), now=begin).anchored(begin)
    policy = Policy(paused=paused, catches_up=catches_up)
    since, cursor, now = begin + timedelta(seconds=watched), begin, begin
    decided: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        made = plan(due, cursor=cursor, now=now, watched_since=min(since, now), policy=policy)
        cursor = made.cursor
        decided += [instant for decision in made.decisions for instant in expanded(decision, due)]

    expected, instant = [], due.after(begin)
    while instant is not None and instant <= cursor:
        expected.append(instant)
        instant = due.after(instant)
    assert decided == expected


def test_only_instants_that_never_run_are_joined() -> None:
    """Two that are started are two rows; so are neighbours of different reasons."""
    made = look(cursor=NOW - 3 * MINUTE, line="* * * * *")

    assert what(made) == [("queued", None, 1)] * 3
    assert {each.reason for each in made.decisions} == {None}
    assert Reason.LATE not in {each.reason for each in made.decisions}


HELD = Policy(held=True)


def test_a_held_job_skips_what_is_due() -> None:
    """Each instant with its row and its reason."""
    assert what(look(cursor=NOW - MINUTE, policy=HELD)) == [("skipped", "held", 1)]


def test_a_held_job_skips_what_it_would_catch_up() -> None:
    """The hold has cost it; one run makes up for it when the hold ends."""
    made = look(cursor=NOW - 3 * HOUR, watched_since=NOW, policy=HELD)

    assert what(made) == [("missed", "coalesced", 2), ("skipped", "held", 1)]


def test_the_probe_of_a_held_job_is_its_newest_due_instant() -> None:
    """All before it are skipped."""
    late = Policy(misfire_grace_time=HOUR, held=True, probes=True)

    made = look(cursor=NOW - MINUTE, now=NOW + MINUTE, policy=late, line="* * * * *")

    assert what(made) == [("skipped", "held", 1), ("queued", None, 1)]
