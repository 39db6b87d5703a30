"""What becomes of each due instant: decided exactly once, whenever one looks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.run import Reason, RunState, Trigger
from scheduler.config.settings import CatchUp
from scheduler.jitter import delay
from scheduler.lateness import grace_of
from scheduler.periods import Period
from scheduler.planner import CATCH_UP_WINDOW, MOST_AT_ONCE, Decision, Plan, Policy, plan
from scheduler.timetable import Timetable
from scheduler.triggers import Schedule

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
USUAL = Policy()


def schedule(line: str = "0 * * * *", zone: str = "UTC") -> Schedule:
    """Return a line's schedule."""
    return Timetable((line,), zone).schedule(now=NOW, anchor=NOW - 40 * DAY)


def look(
    *,
    cursor: datetime,
    now: datetime = NOW,
    watched_since: datetime | None = None,
    policy: Policy = USUAL,
    line: str = "0 * * * *",
    periods: list[Period] | None = None,
) -> Plan:
    """Plan an hourly job; a daemon has been watching since the cursor, unless told otherwise."""
    since = cursor if watched_since is None else watched_since
    given = periods or [Period(NOW - 4000 * DAY, None, schedule(line))]
    return plan(given, job="digest", cursor=cursor, now=now, watched_since=since, policy=policy)


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
    none = Policy(catch_up=CatchUp.NONE)

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
    """One row for all of it, also for what a pause of the past has cost while no daemon was up."""
    paused = [
        Period(NOW - DAY, NOW - 3 * HOUR, schedule(), paused=True),
        Period(NOW - 3 * HOUR, None, schedule()),
    ]

    made = look(cursor=NOW - 5 * HOUR - MINUTE, watched_since=NOW, periods=paused)

    assert what(made) == [("skipped", "paused", 3), ("missed", "coalesced", 2), ("queued", None, 1)]


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


def test_a_changed_timetable_owes_its_own_instants_from_the_change_on() -> None:
    """And the one before it up to the change."""
    changed = [
        Period(NOW - DAY, NOW - 2 * HOUR, schedule()),
        Period(NOW - 2 * HOUR, None, schedule("30 * * * *")),
    ]

    made = look(cursor=NOW - 3 * HOUR - MINUTE, periods=changed, policy=Policy(3 * HOUR + MINUTE))

    assert [each.instant for each in made.decisions] == [NOW - n * HOUR for n in (3, 2, 1.5, 0.5)]
    assert made.next_instant == NOW + 0.5 * HOUR


def test_nothing_is_due_where_no_timetable_stands() -> None:
    """A disabled job owes nothing and has nothing to wait for."""
    made = look(cursor=NOW - DAY, periods=[Period(NOW - DAY, None, None)])

    assert (made.decisions, made.cursor, made.next_instant) == ((), NOW, None)


def test_everything_missed_can_be_caught_up_oldest_first() -> None:
    """`catch_up: all`; what is beyond the cap is said so."""
    everything = Policy(catch_up=CatchUp.ALL)

    made = look(cursor=NOW - 3 * DAY, watched_since=NOW, policy=everything, line="*/30 * * * *")

    assert what(made)[0] == ("missed", "catch_up_cap", 44)
    starts = [each.instant for each in made.decisions[1:]]
    assert starts == [NOW - n * 30 * MINUTE for n in range(99, -1, -1)]
    assert {each.trigger for each in made.decisions} == {Trigger.CATCH_UP}


JITTER = Policy(jitter=10 * MINUTE)
DELAY = delay("digest", NOW, limit=10 * MINUTE)


def test_jitter_delays_an_instant_that_the_ledger_keeps_by_its_name() -> None:
    """The cursor waits before it; the plan says when it falls due."""
    assert timedelta(seconds=2) < DELAY < 10 * MINUTE
    early = look(cursor=NOW - MINUTE, now=NOW + DELAY - timedelta(seconds=1), policy=JITTER)
    due = look(cursor=early.cursor, now=NOW + DELAY, policy=JITTER)

    assert (early.decisions, early.next_instant, early.next_wake) == ((), NOW, NOW + DELAY)
    assert early.cursor < NOW
    assert due.decisions == (Decision(NOW, RunState.QUEUED, Trigger.SCHEDULE),)


def test_an_instant_that_falls_due_after_a_start_was_watched() -> None:
    """Though its nominal time lies before it."""
    policy = Policy(catch_up=CatchUp.NONE, jitter=10 * MINUTE)

    made = look(cursor=NOW - MINUTE, now=NOW + DELAY, watched_since=NOW + timedelta(seconds=1), policy=policy)

    assert what(made) == [("queued", None, 1)]


def test_jitter_counts_before_lateness() -> None:
    """The grace time begins when the delay is over."""
    policy = Policy(MINUTE, jitter=10 * MINUTE)

    assert what(look(cursor=NOW - MINUTE, now=NOW + DELAY + MINUTE, policy=policy)) == [("queued", None, 1)]
    late = look(cursor=NOW - MINUTE, now=NOW + DELAY + MINUTE + timedelta(seconds=1), policy=policy)
    assert what(late) == [("missed", "late", 1)]


def test_half_a_period_spares_an_instant_that_jitter_moved_behind_the_next() -> None:
    """It fell due a few minutes ago, though the short period after it is over already."""
    earlier = NOW - 55 * MINUTE
    name = next(
        name
        for name in map(str, range(100_000))
        if delay(name, earlier, limit=55 * MINUTE) > 54 * MINUTE
        and delay(name, NOW, limit=5 * MINUTE) < MINUTE / 2
    )
    periods = [Period(NOW - DAY, None, schedule("0,5 * * * *"))]

    made = plan(
        periods,
        job=name,
        cursor=earlier - MINUTE,
        now=NOW + 4 * MINUTE,
        watched_since=earlier,
        policy=Policy(jitter=HOUR),
    )

    assert [(each.instant, each.state) for each in made.decisions] == [
        (earlier, RunState.QUEUED),
        (NOW, RunState.MISSED),
    ]


def test_a_pause_takes_what_was_still_delayed() -> None:
    """Whoever pauses a job sees no run of it begin."""
    paused = NOW + timedelta(seconds=1)
    periods = [Period(NOW - DAY, paused, schedule()), Period(paused, None, schedule(), paused=True)]

    made = look(cursor=NOW - MINUTE, now=NOW + 11 * MINUTE, policy=JITTER, periods=periods)

    assert what(made) == [("skipped", "paused", 1)]


def test_a_change_of_the_timetable_lets_go_what_was_still_delayed() -> None:
    """It falls due with the change: nothing is lost, and nothing comes after its successors."""
    changed = NOW + timedelta(seconds=1)
    periods = [Period(NOW - DAY, changed, schedule()), Period(changed, None, schedule("1 * * * *"))]

    made = look(cursor=NOW - MINUTE, now=changed, policy=JITTER, periods=periods)

    assert what(made) == [("queued", None, 1)]
    assert made.next_instant == NOW + MINUTE


def test_the_last_run_ends_the_schedule() -> None:
    """`max_runs`; what comes behind it is not decided, and what is missed costs none."""
    policy = Policy(catch_up=CatchUp.ALL, runs_left=2)

    made = look(cursor=NOW - 4 * HOUR - MINUTE, watched_since=NOW, policy=policy)
    after = look(cursor=made.cursor, watched_since=NOW, policy=Policy(runs_left=0))

    assert what(made) == [("queued", None, 1)] * 2
    assert (made.cursor, made.next_instant, made.ended) == (NOW - 3 * HOUR, None, True)
    assert (after.decisions, after.cursor, after.ended) == ((), NOW - 3 * HOUR, True)
    assert not look(cursor=NOW - MINUTE, policy=policy).ended


def test_a_clock_that_was_set_back_says_how_far() -> None:
    """So that the daemon can warn."""
    assert look(cursor=NOW + 5 * HOUR, now=NOW).ahead == 5 * HOUR
    assert look(cursor=NOW - MINUTE, now=NOW).ahead == timedelta(0)


class Asked:
    """A schedule that counts how often it is asked."""

    def __init__(self, inner: Schedule) -> None:
        self._inner, self.times = inner, 0

    def __getattr__(self, name: str) -> Any:
        self.times += 1
        return getattr(self._inner, name)


MANY = (
    ("every 1s",),
    ("* * * * * *",),
    ("* * * * * *", "every 1s"),
    ("*/2 * * * * *", "1 * * * *", "every 7m"),
)


@pytest.mark.parametrize("lines", MANY, ids=", ".join)
@pytest.mark.parametrize("catch_up", CatchUp)
@pytest.mark.parametrize("days", [30, 3650])
def test_a_long_absence_from_a_short_period_takes_few_steps(
    lines: tuple[str, ...], catch_up: CatchUp, days: int
) -> None:
    """Counted in what the schedule is asked, and in decisions: neither grows with the absence."""
    asked = Asked(Timetable(lines, "Europe/Berlin").schedule(now=NOW, anchor=NOW - 4000 * DAY))
    periods = [Period(NOW - 4000 * DAY, None, asked)]

    made = look(cursor=NOW - days * DAY, watched_since=NOW, policy=Policy(catch_up=catch_up), periods=periods)

    assert asked.times < 450
    assert len(made.decisions) <= 102
    assert sum(each.count for each in made.decisions) >= days * 43_200


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(2 * HOUR), Policy(held=True), Policy(jitter=HOUR)], ids=repr
)
def test_a_long_sleep_before_a_daemons_eyes_takes_few_steps(policy: Policy) -> None:
    """Ten years of seconds; what is in time is started in parts, and the next look comes at once."""
    asked = Asked(schedule("every 1s"))
    periods = [Period(NOW - 4000 * DAY, None, asked)]

    made = look(cursor=NOW - 3650 * DAY, policy=policy, periods=periods)

    assert asked.times < 900
    assert len(made.decisions) <= MOST_AT_ONCE + 2
    starts = [each for each in made.decisions if each.state is RunState.QUEUED]
    assert len(starts) == (0 if policy.held else MOST_AT_ONCE)
    assert made.next_wake is not None
    assert (made.next_wake <= NOW) == bool(starts)
