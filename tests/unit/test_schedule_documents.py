"""What `docs/schedules.md` says of schedules is so, here and in croniter."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from croniter import CroniterBadCronError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.timetable import Timetable
from scheduler.triggers import parse_schedule
from scheduler.zone_pieces import Fold, Gap

DOCUMENT = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
NOW = datetime(2026, 11, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
LOOKS = re.compile(r"# after (\S+) it is due at\n((?:#   .*\n)+)")
DIFFERENCES = re.findall(r"^\| `(.*?)` \| (2\S+) \| (.*?) \| (.*?) \|$", DOCUMENT, re.MULTILINE)


def made(keys: dict[str, Any]) -> Timetable:
    """Return the timetable of a job's keys, as the page writes them."""
    zone, dst, lines = ZoneInfo(keys["timezone"]), keys.get("dst", {}), keys["schedule"]
    start, end = (
        datetime.fromisoformat(keys[name]).replace(tzinfo=zone) if name in keys else None
        for name in ("start", "end")
    )
    return Timetable(
        (lines,) if isinstance(lines, str) else tuple(lines),
        zone.key,
        Gap(dst["gap"]) if dst else None,
        Fold(dst["fold"]) if dst else None,
        start,
        end,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_due_when_the_page_says(example: str) -> None:
    """One instant after the other, and none after the last where the schedule has ended."""
    keys = yaml.load(example, yaml.BaseLoader)
    schedule, zone = made(keys).schedule(now=NOW), ZoneInfo(keys["timezone"])
    looks = LOOKS.findall(example)
    assert looks

    for after, said in looks:
        at = datetime.fromisoformat(after).replace(tzinfo=zone)
        for written in said.splitlines():
            due = schedule.after(at)
            assert due is not None
            assert f"{due.astimezone(zone):%Y-%m-%d %H:%M %z}" == written.removeprefix("#   ")
            at = due
        assert "end" not in keys or schedule.after(at) is None


@pytest.mark.parametrize(("line", "after", "here", "there"), DIFFERENCES)
def test_a_difference_from_croniter_is_as_the_page_says(line: str, after: str, here: str, there: str) -> None:
    """Two instants each, or a refusal."""
    at = datetime.fromisoformat(after).replace(tzinfo=BERLIN)

    assert ours(line, at) == here
    assert theirs(line, at) == there
    assert here != there


def ours(line: str, at: datetime) -> str:
    """Return the next two instants in Berlin."""
    try:
        schedule = parse_schedule(line, BERLIN, now=NOW)
    except ValueError:
        return "–"
    first = schedule.after(at)
    assert first is not None
    second = schedule.after(first)
    assert second is not None
    return ", ".join(f"{due.astimezone(BERLIN):%d %H:%M %z}" for due in (first, second))


def theirs(line: str, at: datetime) -> str:
    """Return what croniter says."""
    try:
        walk = croniter(line, at)
    except CroniterBadCronError:
        return "–"
    return ", ".join(f"{walk.get_next(datetime):%d %H:%M %z}" for _ in range(2))


def numbers(least: int, most: int) -> st.SearchStrategy[str]:
    """Return the forms of a field on which the two agree."""
    number = st.integers(least, most)
    pair = st.tuples(number, number).map(sorted).filter(lambda pair: pair[0] < pair[1])
    span = pair.map(lambda pair: f"{pair[0]}-{pair[1]}")
    step = st.tuples(st.just("*") | span, st.integers(1, 12)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.just("*") | st.lists(number.map(str) | span | step, min_size=1, max_size=3).map(",".join)


@settings(max_examples=250, deadline=None)
@given(
    minute=numbers(0, 59),
    hour=numbers(0, 23),
    month=numbers(1, 12),
    days=st.tuples(numbers(1, 28), st.just("*"))
    | st.tuples(st.just("*"), numbers(0, 6) | st.sampled_from(("mon-fri", "sat,sun", "tue#2", "7")))
    | st.tuples(st.integers(1, 28).map(str), st.integers(0, 6).map(str))
    | st.just(("L", "*")),
    zone=st.sampled_from(("UTC", "Asia/Kolkata", "America/Bogota")),
    seconds=st.integers(0, 3 * 366 * 86_400),
)
def test_a_line_is_what_croniter_makes_of_it_where_the_page_names_no_difference(
    minute: str, hour: str, month: str, days: tuple[str, str], zone: str, seconds: int
) -> None:
    """In zones that do not change their clocks, forwards and backwards."""
    line, here = f"{minute} {hour} {days[0]} {month} {days[1]}", ZoneInfo(zone)
    at = datetime.fromtimestamp(NOW.timestamp() + seconds, here)
    schedule, walk = parse_schedule(line, here, now=NOW), croniter(line, at)

    due = at
    for _ in range(4):
        following = schedule.after(due)
        assert following == walk.get_next(datetime)
        assert following is not None
        due = following
    assert schedule.latest(due - timedelta(seconds=1)) == croniter(line, due.astimezone(here)).get_prev(
        datetime
    )
