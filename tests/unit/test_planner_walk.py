"""The planner against a minute-by-minute walk: every zone that changes its clock, all policies, random looks.

`PROMPTD_WALK=full` takes all zones, also those that are alike, and many more worlds around each change.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from jobs.run import RunState
from scheduler.config.settings import CatchUp
from scheduler.periods import Period
from scheduler.planner import Decision, Plan, Policy, plan
from scheduler.timetable import Timetable
from scheduler.zone_pieces import Fold, Gap
from tests.support.minute_walk import Walk, zones_that_change
from tests.support.naive_planner import Due, Fate, Span, fates, owed

FULL = os.environ.get("PROMPTD_WALK") == "full"
SINCE, UNTIL = datetime(2026, 11, 21, tzinfo=UTC), datetime(2029, 11, 21, tzinfo=UTC)
ZONES = zones_that_change(SINCE, UNTIL, alike=FULL)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WORLDS = 20 if FULL else 2
LOOKS = 8
LINES = (
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "15,45 1-3 * * *",
    "0,5 * * * *",
    "*/20 2 * * *",
    "every 7m",
    "every 3m",
    "every 190m",
)
NO_TIME = timedelta(0)


class World:
    """Random periods of one job in a zone, around a change of its clock."""

    def __init__(self, walk: Walk, random: Random) -> None:
        self.job = f"job-{random.randrange(1000)}"
        self.first, self.last = walk.minutes[0] + 5 * HOUR, walk.minutes[-1] - 6 * HOUR
        self.random, self.walk = random, walk
        cuts = sorted(self.moment() for _ in range(random.randint(0, 3)))
        sides = [self.first, *cuts, None]
        self.periods: list[Period] = []
        self.spans: list[Span] = []
        for since, until in pairwise(sides):
            assert since is not None
            self._add(since, until)

    def moment(self) -> datetime:
        """Return a moment within the world."""
        return self.first + (self.last - self.first) * self.random.random()

    def _add(self, since: datetime, until: datetime | None) -> None:
        random = self.random
        lines = tuple(random.sample(LINES, random.choice((1, 1, 2))))
        gap, fold = random.choice(tuple(Gap)), random.choice(tuple(Fold))
        paused, empty = random.random() < 0.25, random.random() < 0.1
        schedule = Timetable(lines, self.walk.zone, gap, fold).schedule(now=SINCE, anchor=SINCE)
        due = set().union(*(self.walk.due(line, gap=gap, fold=fold, origin=SINCE) for line in lines))
        self.periods.append(Period(since, until, None if empty else schedule, paused))
        self.spans.append(Span(since, until, paused, [] if empty else sorted(due)))

    def policy(self) -> Policy:
        """Return a random policy."""
        random = self.random
        return Policy(
            misfire_grace_time=random.choice((None, None, MINUTE, 20 * MINUTE, 5 * HOUR)),
            catch_up=random.choice(tuple(CatchUp)),
            jitter=random.choice((None, 30 * timedelta(seconds=1), 10 * MINUTE, 3 * HOUR)),
            runs_left=random.choice((None, None, None, 0, 1, 3, 40)),
            held=random.random() < 0.2,
            probes=random.random() < 0.5,
        )

    def looks(self) -> Iterator[tuple[datetime, datetime]]:
        """Yield the time and since when a daemon watches: clocks that go, jump and step back; restarts."""
        random = self.random
        now, watched_since = self.moment(), self.moment()
        for _ in range(LOOKS):
            if random.random() < 0.3:
                watched_since = now
            yield now, min(watched_since, now)
            step = random.choice((20, 90, 900, 20_000, -4000))
            now = min(now + timedelta(seconds=random.random() * step), self.last)


def expanded(decisions: Sequence[Decision], all_owed: Sequence[Due]) -> list[Fate]:
    """Return each instant that the decisions stand for; a span has what it says it has."""
    found: list[Fate] = []
    for each in decisions:
        first = each.first or each.instant
        within = [due.instant for due in all_owed if first <= due.instant <= each.instant]
        assert (within[0], within[-1], len(within)) == (first, each.instant, each.count)
        assert each.count == 1 or each.state is not RunState.QUEUED
        found += [(instant, each.state, each.reason, each.trigger) for instant in within]
    return found


def check_what_comes(made: Plan, all_owed: Sequence[Due], *, cursor: datetime, now: datetime) -> None:
    """Compare the rest of a plan: where its cursor stands, and what it waits for."""
    assert made.cursor >= cursor
    assert made.ahead == max(cursor - now, NO_TIME)
    upcoming = next((due for due in all_owed if due.instant > made.cursor), None)
    if made.ended:
        assert (made.next_instant, made.next_wake) == (None, None)
    elif upcoming is not None:
        assert (made.next_instant, made.next_wake) == (upcoming.instant, upcoming.falls_due)
        assert upcoming.falls_due > now or len(made.decisions) >= 100


@pytest.mark.parametrize("zone", ZONES)
def test_every_look_decides_what_the_walk_decides(zone: str) -> None:
    """Each instant once, in order, with the same state, reason and trigger, whenever one looks."""
    for at, _ in ZONES[zone]:
        walk = Walk(zone, at - 36 * HOUR, at + 36 * HOUR)
        for number in range(WORLDS):
            world = World(walk, Random(f"{zone} {at} {number}"))
            policy = world.policy()
            all_owed = owed(world.spans, job=world.job, jitter=policy.jitter or NO_TIME)
            cursor = world.first if world.random.random() < 0.5 else world.moment()
            for now, watched_since in world.looks():
                asked = {"cursor": cursor, "now": now, "watched_since": watched_since, "policy": policy}
                made = plan(world.periods, job=world.job, **asked)
                expected = fates(all_owed, **asked)
                assert expanded(made.decisions, all_owed) == expected, asked
                undecided = [due.instant for due in all_owed if cursor < due.instant <= made.cursor]
                assert undecided == [fate[0] for fate in expected], asked
                check_what_comes(made, all_owed, cursor=cursor, now=now)
                cursor = made.cursor
