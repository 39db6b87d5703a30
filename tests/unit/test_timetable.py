"""A job's timetable as one value: its key, its bounds, and times at the ends of the calendar."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest

from scheduler.config.settings import CatchUp
from scheduler.jitter import delay
from scheduler.periods import Period
from scheduler.planner import Policy, plan
from scheduler.timetable import Timetable
from scheduler.zone_pieces import Fold, Gap

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=length) for length in (1, 60, 3600, 86_400))
PLAIN = Timetable(("0 7 * * *",), "Europe/Berlin")
FULL = Timetable(
    ("0 7 * * *", "every 90s"),
    "Europe/Berlin",
    Gap.SKIP,
    Fold.BOTH,
    NOW,
    NOW.astimezone(timezone(HOUR)) + DAY,
    12,
)


@pytest.mark.parametrize("timetable", [PLAIN, FULL], ids=["plain", "full"])
def test_a_key_says_the_whole_timetable(timetable: Timetable) -> None:
    """It is read back as the same."""
    again = Timetable.from_key(timetable.key())

    assert again == timetable
    assert again.key() == timetable.key()


def test_a_key_is_short_where_a_timetable_is() -> None:
    """It is stored for every job."""
    assert PLAIN.key() == '{"lines":["0 7 * * *"],"timezone":"Europe/Berlin"}'


@pytest.mark.parametrize(
    "same",
    [
        Timetable((" 0  7 * * * ",), "Europe/Berlin"),
        Timetable(("0 7 * * *", "0 7 * * *"), "Europe/Berlin"),
        Timetable(("0 7 * * *",), "Europe/Berlin", Gap.RUN_AFTER, Fold.FIRST),
    ],
    ids=["spaces", "twice", "defaults"],
)
def test_what_means_the_same_has_the_same_key(same: Timetable) -> None:
    """So that tidying a file owes nothing and costs nothing."""
    assert same.key() == PLAIN.key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"lines":"@daily","timezone":"UTC"}',
        '{"lines":1,"timezone":"UTC"}',
        "0 7 * * * Europe/Berlin",
    ],
)
def test_another_text_is_no_key(text: str) -> None:
    """What an older version stored is told from it."""
    with pytest.raises(ValueError, match=r"not a timetable|Expecting value|Extra data"):
        Timetable.from_key(text)


def test_a_wrong_line_is_named() -> None:
    """In a list by its number; alone it needs no name."""
    with pytest.raises(ValueError, match=r"^line 2 of 2, '61 \* \* \* \*': not a cron line"):
        Timetable(("0 7 * * *", "61 * * * *"), "UTC").schedule(now=NOW)
    with pytest.raises(ValueError, match=r"^not a cron line"):
        Timetable(("61 * * * *",), "UTC").schedule(now=NOW)
    with pytest.raises(ValueError, match="at least one line"):
        Timetable((), "UTC").schedule(now=NOW)
    with pytest.raises(ValueError, match="no time zone is called 'Mars/Olympus'"):
        Timetable(("@daily",), "Mars/Olympus").schedule(now=NOW)


def test_bounds_belong_to_the_schedule() -> None:
    """To the second, and nothing lies outside."""
    due = Timetable(("0 * * * *",), "UTC", start=NOW, end=NOW + 2 * HOUR).schedule(now=NOW)

    assert due.after(NOW - DAY) == NOW
    assert due.after(NOW + 2 * HOUR) is None
    assert due.latest(NOW + DAY) == NOW + 2 * HOUR
    assert due.latest(NOW - SECOND) is None
    assert due.count(NOW - DAY, NOW + DAY) == 3


def test_every_counts_from_the_start_which_is_its_first_instant() -> None:
    """Whenever the job was seen first."""
    start = NOW + timedelta(microseconds=1)
    due = Timetable(("every 90s",), "UTC", start=start).schedule(now=NOW, anchor=NOW - 100 * DAY)

    assert due.after(NOW - DAY) == NOW + SECOND
    assert due.after(NOW + SECOND) == NOW + 91 * SECOND


def test_bounds_between_which_nothing_is_due_are_refused() -> None:
    """A line that never comes is an error."""
    for start, end in ((NOW + DAY, NOW), (NOW, NOW + HOUR)):
        with pytest.raises(ValueError, match="never comes"):
            Timetable(("0 7 * * *",), "UTC", start=start, end=end).schedule(now=NOW)


def test_a_timetable_that_is_over_is_still_read() -> None:
    """A job does not break its configuration by having ended."""
    due = Timetable(("0 7 * * *", "at 2020-01-01T00:00"), "UTC", end=NOW - DAY).schedule(now=NOW)

    assert due.after(NOW) is None
    assert due.latest(NOW) == NOW - DAY - HOUR


FAR = (
    datetime.min.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(-HOUR)),
    datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime.max.replace(tzinfo=timezone(HOUR)),
    datetime.max.replace(tzinfo=UTC),
)
KINDS = (
    ("every 366d",),
    ("every 1s",),
    ("0 0 29 2 *",),
    ("* * * * * *", "every 7m"),
    ("at 9998-12-31T12:00",),
)


@pytest.mark.parametrize("lines", KINDS, ids=", ".join)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_no_time_is_too_far_to_be_asked_about(lines: tuple[str, ...], zone: str) -> None:
    """The instants lie within 1970 to 9998, wherever one looks from."""
    for anchor, moment in product(FAR, FAR):
        due = Timetable(lines, zone).schedule(now=NOW, anchor=anchor)
        for found in (due.after(moment), due.latest(moment)):
            assert found is None or FAR[3] <= found <= FAR[4]
        assert due.count(moment, moment) == 0
    assert due.count(FAR[0], FAR[2]) == 0


@pytest.mark.parametrize("start", FAR)
@pytest.mark.parametrize("lines", KINDS, ids=", ".join)
def test_a_start_may_lie_far_away(start: datetime, lines: tuple[str, ...]) -> None:
    """It has a key, and is refused only when nothing can come after it."""
    timetable = Timetable(lines, "Europe/Berlin", start=start)

    assert Timetable.from_key(timetable.key()) == timetable
    if start > FAR[4] or (start == FAR[4] and "* *" not in lines[0] and "every" not in lines[0]):
        with pytest.raises(ValueError, match="never comes"):
            timetable.schedule(now=NOW)
    else:
        timetable.schedule(now=NOW).after(NOW)


@pytest.mark.parametrize("lines", KINDS, ids=", ".join)
@pytest.mark.parametrize("policy", [Policy(), Policy(HOUR, CatchUp.ALL, 5 * MINUTE)], ids=["usual", "all"])
def test_a_clock_at_either_end_of_the_calendar_plans(lines: tuple[str, ...], policy: Policy) -> None:
    """Forwards and backwards, and with the cursor as far away."""
    due = Timetable(lines, "Europe/Berlin").schedule(now=NOW, anchor=FAR[3])
    for now, since, days in product(FAR[2:], FAR[2:], (-40, 0, 40)):
        cursor = min(max(now, FAR[3]), FAR[4]) + days * DAY
        looks = {"cursor": cursor, "now": now, "watched_since": since}
        made = plan([Period(FAR[0], None, due)], job="digest", policy=policy, **looks)
        assert len(made.decisions) <= 202


@pytest.mark.parametrize("limit", [timedelta(0), timedelta(milliseconds=1), SECOND, 5 * MINUTE, DAY])
def test_a_delay_is_smaller_than_its_limit_and_always_the_same(limit: timedelta) -> None:
    """In whole milliseconds, for any job and instant."""
    for number in range(500):
        found = delay(f"job-{number % 7}", NOW + number * MINUTE, limit=limit)
        assert timedelta(0) <= found < limit or found == limit == timedelta(0)
        assert found % timedelta(milliseconds=1) == timedelta(0)
        assert found == delay(f"job-{number % 7}", NOW + number * MINUTE, limit=limit)


def test_a_delay_is_the_same_on_every_machine() -> None:
    """The share of `printf 'digest\\0001788508800' | b2sum -l 64` in an hour."""
    assert delay("digest", NOW, limit=HOUR) == timedelta(milliseconds=1_033_208)


def test_delays_spread_over_their_limit() -> None:
    """A thousand jobs of one minute: each tenth of the jitter gets its part."""
    tenths = [0] * 10
    for number in range(1000):
        tenths[delay(f"job-{number}", NOW, limit=10 * MINUTE) // MINUTE] += 1

    assert min(tenths) > 60
