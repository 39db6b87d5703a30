"""Schedule lines: what they mean in a zone, over daylight saving, and what is refused."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.triggers import Schedule, parse_line, parse_schedule
from scheduler.zone_pieces import Fold
from tests.support.minute_walk import Walk, changes_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo")
LINES = (
    "0 7 * * *",
    "30 2 * * *",
    "30 1 * * *",
    "15 1,2,3 * * *",
    "0 * * * *",
    "*/10 * * * *",
    "*/20 */2 * * *",
    "5 0-4 * * *",
    "0 0 29 2 *",
    "0 9 L * *",
    "0 9 * * mon#1",
    "0 0 13 * 5",
    "@hourly",
    "@daily",
    "every 90s",
    "every 7h",
)


def schedule(line: str, zone: str = "UTC") -> Schedule:
    """Return a line's schedule, seen first at the beginning of 2026."""
    return parse_schedule(line, ZoneInfo(zone), now=NOW).anchored(NOW)


def instants(line: str, zone: str, start: str, end: str) -> list[str]:
    """Return the instants after local `start` up to local `end`, in local time with the offset."""
    found, here = [], ZoneInfo(zone)
    moment, last = (datetime.fromisoformat(each).replace(tzinfo=here) for each in (start, end))
    due = schedule(line, zone).after(moment)
    while due is not None and due <= last:
        found.append(due.astimezone(here).strftime("%d %H:%M %z"))
        due = schedule(line, zone).after(due)
    return found


GAPS = {  # a fixed time that does not exist runs right after the jump
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-30T12:00"): [
        "29 03:00 +0200", "30 02:30 +0200",
    ],
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", "2026-03-09T12:00"): [
        "08 03:00 -0400", "09 02:30 -0400",
    ],
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", "2026-10-05T12:00"): [
        "04 02:30 +1100", "05 02:15 +1100",
    ],
}  # fmt: skip
FOLDS = {  # one that exists twice runs the first time
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-26T12:00"): [
        "25 02:30 +0200", "26 02:30 +0100",
    ],
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", "2026-11-02T12:00"): [
        "01 01:30 -0400", "02 01:30 -0500",
    ],
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", "2026-04-06T12:00"): [
        "05 01:45 +1100", "06 01:45 +1030",
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", GAPS, ids=" ".join)
def test_a_fixed_time_that_does_not_exist_runs_right_after_the_jump(case: tuple[str, str, str, str]) -> None:
    """Once, as in Debian's cron."""
    assert instants(*case) == GAPS[case]


@pytest.mark.parametrize("case", FOLDS, ids=" ".join)
def test_a_fixed_time_that_exists_twice_runs_the_first_time(case: tuple[str, str, str, str]) -> None:
    """Once, as in Debian's cron."""
    assert instants(*case) == FOLDS[case]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("line", ["0 * * * *", "@hourly", "0 */1 * * *"])
@pytest.mark.parametrize("month", [3, 10, 11])
def test_hourly_lines_follow_elapsed_time(zone: str, line: str, month: int) -> None:
    """Neither a missing nor a repeated hour is seen in UTC."""
    due, start = schedule(line, zone), datetime(2026, month, 1, tzinfo=UTC)
    found = [start]
    for _ in range(24 * 30):
        following = due.after(found[-1])
        assert following is not None
        found.append(following)

    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=1)}


@settings(max_examples=150, deadline=None)
@given(
    line=st.sampled_from(LINES),
    zone=st.sampled_from(ZONES),
    seconds=st.integers(0, 366 * 86400),
    fraction=st.sampled_from([0, 1, 999_999]),
)
def test_the_next_instant_is_later_whole_and_the_same_from_anywhere_before_it(
    line: str, zone: str, seconds: int, fraction: int
) -> None:
    """A schedule is a set: where one looks from does not change what is in it."""
    due = schedule(line, zone)
    moment = NOW + timedelta(seconds=seconds, microseconds=fraction)

    following = due.after(moment)

    assert following is not None
    assert following > moment
    assert following.tzinfo is UTC
    assert following.microsecond == 0
    for thousandths in (300, 900, 999):
        assert due.after(moment + (following - moment) * thousandths // 1000) == following
    assert due.after(following - timedelta(microseconds=1)) == following


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("line", ["30 2 * * *", "30 1 * * *", "45 1 * * *", "*/10 * * * *", "5 1-3 * * *"])
@pytest.mark.parametrize(
    "day", ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01"]
)
def test_around_a_transition_each_instant_is_found_from_everywhere(zone: str, line: str, day: str) -> None:
    """Looking every seven minutes finds what stepping from instant to instant finds."""
    due = schedule(line, zone)
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) - timedelta(hours=3)
    looks = [start + timedelta(minutes=7 * number) for number in range(300)]
    stepped, at = [], due.after(start)
    while at is not None and at <= looks[-1]:
        stepped.append(at)
        at = due.after(at)

    looked = {due.after(look) for look in looks[:-1]}

    assert {each for each in looked if each is not None and each <= looks[-1]} <= set(stepped)


def test_every_counts_from_the_first_sight_of_a_job() -> None:
    """So that a restart shifts nothing."""
    due = parse_schedule("every 90s", ZoneInfo("UTC"), now=NOW).anchored(NOW + timedelta(microseconds=5))

    assert due.after(NOW) == NOW + timedelta(seconds=90)
    assert due.after(NOW + timedelta(seconds=90)) == NOW + timedelta(seconds=180)
    assert due.after(NOW + timedelta(days=3, seconds=1)) == NOW + timedelta(days=3, seconds=90)
    assert due.anchored(NOW + timedelta(days=1)).after(NOW) == NOW + timedelta(seconds=90)


def test_every_owes_nothing_before_its_origin() -> None:
    """A clock that was set back waits."""
    assert schedule("every 1h").after(NOW - timedelta(days=9)) == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("at 2026-12-01T09:00", "2026-12-01T08:00"),
        ("at 2026-12-01 09:00:30", "2026-12-01T08:00:30"),
        ("at 2026-12-01T09:00Z", "2026-12-01T09:00"),
        ("at 2026-12-01T09:00+05:30", "2026-12-01T03:30"),
    ],
)
def test_at_is_due_once(line: str, moment: str) -> None:
    """In the job's zone, unless it names its own."""
    due, when = schedule(line, "Europe/Berlin"), datetime.fromisoformat(moment).replace(tzinfo=UTC)

    assert due.after(NOW) == when
    assert due.after(when) is None


@pytest.mark.parametrize(("fold", "moment"), [(Fold.BOTH, 0), (Fold.FIRST, 0), (Fold.LAST, 1)])
def test_at_is_due_once_also_where_its_time_exists_twice(fold: Fold, moment: int) -> None:
    due = parse_line("at 2027-10-31T02:30", ZoneInfo("Europe/Berlin"), now=NOW, fold=fold)

    when = datetime(2027, 10, 31, moment, 30, tzinfo=UTC)
    assert (due.after(NOW), due.after(when)) == (when, None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0 30 2 *", "cron line|never comes"),
        ("0 0 31 4,6,9,11 *", "cron line|never comes"),
        ("@reboot", "@reboot is not a time; use `every 1d`"),
        ("@fortnightly", "there are @annually"),
        ("@daily 5", "@daily is unknown"),
        ("61 * * * *", "not a cron line"),
        ("* * * *", "five cron fields"),
        ("", "five cron fields"),
        ("every", "duration"),
        ("every 0s", "duration"),
        ("every -5m", "duration"),
        ("every 5 parsecs", "duration"),
        ("at noon", "at 2026-12-01T09:00"),
        ("at 2026-13-01T09:00", "month"),
    ],
)
def test_a_line_that_cannot_be_is_refused_in_words(line: str, words: str) -> None:
    """What is wrong, and what would be right."""
    with pytest.raises(ValueError, match=words):
        schedule(line)


@pytest.mark.parametrize(
    ("line", "dates"),
    [
        ("0 0 13 * 5", ["02", "09", "13", "16", "23", "30"]),
        ("0 0 * * 0", ["04", "11", "18", "25"]),
        ("0 0 * * 7", ["04", "11", "18", "25"]),
        ("0 0 L * *", ["31"]),
        ("0 0 * * fri#2", ["09"]),
    ],
)
def test_day_fields_mean_what_debians_cron_means(line: str, dates: list[str]) -> None:
    """January 2026 begins on a Thursday; both day fields restricted are joined by *or*."""
    found = instants(line, "UTC", "2026-01-01T00:00", "2026-01-31T12:00")

    assert [each[:2] for each in found] == dates


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("30 30 2 * * *", ["29 03:00 +0200", "30 02:30 +0200"]),
        ("*/30 30 2 * * *", ["30 02:30 +0200", "30 02:30 +0200"]),
        ("0 */30 2 * * *", ["30 02:00 +0200", "30 02:30 +0200"]),
        ("0-59/30 2 * * *", ["29 03:00 +0200", "30 02:00 +0200", "30 02:30 +0200"]),
        ("30 */2 * * *", ["29 04:30 +0200", "29 06:30 +0200"]),
        ("30 0-23/2 * * *", ["29 03:00 +0200", "29 04:30 +0200"]),
    ],
)
def test_a_line_is_fixed_when_no_field_of_its_time_begins_with_a_star(line: str, found: list[str]) -> None:
    """Also one with seconds: then the jump itself is the instant, once for all that is missing."""
    here = ZoneInfo("Europe/Berlin")
    moment, said = datetime(2026, 3, 29, 1, tzinfo=here), []
    for _ in found:
        due = schedule(line, "Europe/Berlin").after(moment)
        assert due is not None
        said.append(due.astimezone(here).strftime("%d %H:%M %z"))
        moment = due

    assert said == found


@pytest.mark.parametrize("line", ["every 1s", "* * * * * *", "* * * * *", "every 7m", "0 9 * * mon#1"])
def test_ten_years_are_counted_as_the_sum_of_their_parts(line: str) -> None:
    """However the time is cut."""
    due, cuts = schedule(line, "Europe/Berlin"), [NOW + timedelta(seconds=7919 * n * n) for n in range(200)]

    assert due.count(cuts[0], cuts[-1]) == sum(due.count(*pair) for pair in pairwise(cuts))


@pytest.mark.parametrize(("zone", "hour"), [("Europe/Berlin", 2), ("Antarctica/Troll", 1)])
def test_a_rare_line_in_a_repeated_hour_is_found_from_within_it(zone: str, hour: int) -> None:
    """Its next instant lies minutes away, at an earlier local time, or a year: in any year of a century."""
    changes = changes_of(zone, datetime(2006, 1, 1, tzinfo=UTC), datetime(2096, 1, 1, tzinfo=UTC))
    for at in [at for at, _ in changes if at.month == 10]:
        line = f"*/20 {hour} {at.day} {at.month} *"
        walk = Walk(zone, at - timedelta(hours=3), at + timedelta(hours=3))
        due, expected = schedule(line, zone), sorted(walk.due(line, origin=NOW))
        assert len(expected) == 6
        for minute in walk.minutes[::7]:
            later = [each for each in expected if each > minute]
            assert not later or due.after(minute) == later[0]
            earlier = [each for each in expected if each <= minute]
            assert not earlier or due.latest(minute) == earlier[-1]


def test_a_day_may_be_left_out_by_a_zone() -> None:
    """Samoa went over the date line: 30 December 2011 does not exist there."""
    apia, since = ZoneInfo("Pacific/Apia"), datetime(2011, 12, 29, 12, tzinfo=ZoneInfo("Pacific/Apia"))
    daily = parse_schedule("15 6 * * *", apia, now=since)
    hourly = parse_schedule("0 * * * *", apia, now=since)

    first = daily.after(since)

    assert first == datetime(2011, 12, 31, tzinfo=apia)
    assert daily.after(first) == datetime(2011, 12, 31, 6, 15, tzinfo=apia)
    assert hourly.count(since, datetime(2012, 1, 1, 12, tzinfo=apia)) == 48


def test_the_newest_instant_of_a_rare_line_may_lie_decades_back() -> None:
    """29 February on a Monday: 2044 and 2072, and in between none, nor any in 2100."""
    due = schedule("0 0 */28 2 mon#5")

    assert due.after(NOW) == datetime(2044, 2, 29, tzinfo=UTC)
    assert due.latest(datetime(2100, 1, 1, tzinfo=UTC)) == datetime(2072, 2, 29, tzinfo=UTC)
    assert due.count(NOW, datetime(2100, 1, 1, tzinfo=UTC)) == 2
