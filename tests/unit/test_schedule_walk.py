"""Schedules against a minute-by-minute walk, over every zone that changes its clock in three years.

`PROMPTD_WALK=full` takes all zones, also those that are alike, and every line with every policy.
"""

import os
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.timetable import Timetable
from scheduler.triggers import Schedule, parse_schedule
from scheduler.zone_pieces import Fold, Gap
from tests.support.minute_walk import Changes, Walk, zones_that_change

FULL = os.environ.get("PROMPTD_WALK") == "full"
SINCE, UNTIL = datetime(2026, 11, 21, tzinfo=UTC), datetime(2029, 11, 21, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ZONES = zones_that_change(SINCE, UNTIL, alike=FULL)
POLICIES = tuple(product((None, *Gap), (None, *Fold)))
SPARSE = (
    "30 2 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "45 23 * * sun",
    "15,45 0-3 * * *",
    "5 0-23/2 * * *",
    "0 3 L * *",
    "10 1 * * sun#1",
    "20 0 * 3,10 5L",
    "30 2 8-14 * sun",
    "0 2 */2 * sat,sun",
    "every 97m",
)
DENSE = (
    "* * * * *",
    "*/7 * * * *",
    "30 * * * *",
    "*/20 */2 * * *",
    "*/15 2 * * *",
    "0 */1 * * *",
    "every 11m",
)
LINES = SPARSE + DENSE
PICKED = 5
LOOKS = 15


def stepped(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Return the instants after `since` up to `until`, from one to the next."""
    found, due = [], schedule.after(since)
    while due is not None and due <= until:
        found.append(due)
        due = schedule.after(due)
    return found


def agree(schedule: Schedule, expected: list[datetime], walk: Walk, random: Random) -> None:
    """Ask a schedule everything it answers, and compare with the walk but for its ends."""
    since, until = walk.minutes[0] + 4 * HOUR, walk.minutes[-1] - 4 * HOUR
    inside = [each for each in expected if since < each <= until]
    assert stepped(schedule, since, until) == inside
    assert schedule.count(since, until) == len(inside)
    for _ in range(LOOKS):
        at, later = sorted(since + (until - since) * random.random() for _ in range(2))
        before = bisect_right(inside, at)
        assert schedule.after(at) == inside[before] if before < len(inside) else True
        assert schedule.latest(at) == inside[before - 1] if before else True
        assert schedule.count(at, later) == bisect_right(inside, later) - before


def walks(changes: Changes, zone: str) -> list[Walk]:
    """Return a walk around each change of a zone."""
    return [Walk(zone, at - 40 * HOUR, at + 40 * HOUR) for at, _ in changes]


@pytest.mark.parametrize("zone", ZONES)
def test_a_line_is_due_at_the_minutes_that_the_walk_finds(zone: str) -> None:
    """Around each change of the clock, with every policy."""
    for walk in walks(ZONES[zone], zone):
        random = Random(f"{zone} {walk.minutes[0]}")
        cases = list(product(LINES, POLICIES))
        for line, (gap, fold) in cases if FULL else random.sample(cases, PICKED):
            timetable = Timetable((line,), zone, gap, fold)
            origin = walk.minutes[0] - random.randrange(100_000) * MINUTE
            due = walk.due(line, gap=gap or "run_after", fold=fold or "first", origin=origin)
            agree(timetable.schedule(now=SINCE, anchor=origin), sorted(due), walk, random)


@pytest.mark.parametrize("zone", ZONES)
def test_a_list_of_lines_within_bounds_is_their_union(zone: str) -> None:
    """What coincides is one instant; `every` counts from the start."""
    for walk in walks(ZONES[zone], zone):
        random = Random(f"list {zone} {walk.minutes[0]}")
        lines = (
            *random.sample(LINES, random.randint(1, 3)),
            f"at {random.choice(walk.shown[600:-600]):%FT%H:%M}",
        )
        fold = random.choice(tuple(Fold))
        start, end = (
            random.choice((None, each)) for each in sorted(random.sample(walk.minutes[300:-300], 2))
        )
        timetable = Timetable(lines, zone, None, fold, start, end)
        bounds = {"origin": SINCE, "start": start, "end": end}
        due = set().union(*(walk.due(line, fold=fold, **bounds) for line in lines))
        if start and end and not due:
            with pytest.raises(ValueError, match="never comes"):
                timetable.schedule(now=SINCE)
        else:
            agree(timetable.schedule(now=SINCE, anchor=SINCE), sorted(due), walk, random)


@pytest.mark.parametrize("gap", Gap)
@pytest.mark.parametrize("fold", Fold)
def test_a_moment_obeys_the_policy_of_its_job(gap: Gap, fold: Fold) -> None:
    """`at T`, in every missing and every repeated hour."""
    for zone, changes in list(ZONES.items())[:: 1 if FULL else 4]:
        for walk in walks(changes[:2], zone):
            twice = [shown for shown, minutes in walk.comes.items() if len(minutes) > 1]
            for shown in (*list(walk.left_out)[::29], *twice[::29]):
                line = f"at {shown:%FT%H:%M}"
                due = sorted(walk.due(line, gap=gap, fold=fold, origin=SINCE))
                timetable = Timetable((line,), zone, gap, fold)
                if not due:
                    with pytest.raises(ValueError, match="does not exist in"):
                        timetable.schedule(now=SINCE)
                    continue
                assert stepped(timetable.schedule(now=SINCE), walk.minutes[0], walk.minutes[-1]) == due


FIELD = st.sampled_from(("*", "*/2", "*/7", "0", "3", "5,6", "2-5", "0-11/3"))
DAYS = st.sampled_from(("*", "*/3", "1", "13", "L", "5-9", "28,29,30,31"))
WEEKDAYS = st.sampled_from(("*", "mon", "5", "7", "0", "sat,sun", "mon-fri", "tue#2", "5L"))


@settings(max_examples=400 if not FULL else 20_000, deadline=None)
@given(
    minute=FIELD,
    hour=FIELD,
    day=DAYS,
    month=st.sampled_from(("*", "2", "3,10", "4-11")),
    weekday=WEEKDAYS,
    zone=st.sampled_from([*sorted(ZONES), "UTC", "Asia/Kolkata"]),
    seconds=st.integers(0, 3 * 366 * 86_400),
)
def test_a_line_is_what_cronsim_makes_of_it(
    minute: str, hour: str, day: str, month: str, weekday: str, zone: str, seconds: int
) -> None:
    """The library that parses our lines also walks them, as Debian's cron does.

    Where a zone skips midnight it begins the day there all the same, and lets a wildcard line run after the
    jump at a time that the line does not name: those are left out.
    """
    line, here = f"{minute} {hour} {day} {month} {weekday}", ZoneInfo(zone)
    moment = SINCE + timedelta(seconds=seconds)
    theirs: list[datetime] = []
    for local in CronSim(line, (moment - 2 * DAY).astimezone(here)):
        due = local.astimezone(UTC)
        exists = local.replace(tzinfo=None, fold=0) == due.astimezone(here).replace(tzinfo=None, fold=0)
        if due > moment and due not in theirs and exists:
            theirs.append(due)
        if len(theirs) == 8:
            break
    theirs.sort()

    due = parse_schedule(line, here, now=SINCE)

    assert stepped(due, moment, theirs[-3]) == theirs[:-2]
    assert due.latest(theirs[3]) == theirs[3]
    assert due.count(moment, theirs[3]) == 4


@settings(max_examples=100, deadline=None)
@given(
    second=st.sampled_from(("*", "*/13", "0", "7,59", "20-40")),
    minute=FIELD,
    hour=FIELD,
    zone=st.sampled_from(sorted(ZONES)),
    data=st.data(),
)
def test_a_line_of_six_fields_agrees_with_itself_to_the_second(
    second: str, minute: str, hour: str, zone: str, data: st.DataObject
) -> None:
    """Its count is that of its steps, and the newest instant that of all, around a change of the clock."""
    at, _ = data.draw(st.sampled_from(ZONES[zone]))
    begin = at + timedelta(seconds=data.draw(st.integers(-30_000, 10_000)))
    due = parse_schedule(f"{second} {minute} {hour} * * *", ZoneInfo(zone), now=SINCE)
    end = begin + timedelta(seconds=data.draw(st.integers(1, 8_000)))

    found = stepped(due, begin, end)

    assert due.count(begin, end) == len(found)
    back, newest = [], due.latest(end)
    while newest is not None and newest > begin:
        back.append(newest)
        newest = due.latest(newest - timedelta(seconds=1))
    assert back[::-1] == found
