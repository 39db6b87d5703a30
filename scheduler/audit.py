"""The audit of one job: its rows against the instants that its timetables have owed. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from jobs.run import Reason, RunState
from jobs.store.replay import Entry
from scheduler.periods import SECOND, Period, Stretch


class Kind(StrEnum):
    """What can be wrong with a job's rows."""

    LOST = "lost"
    TWICE = "twice"
    BESIDE = "beside"
    MISCOUNTED = "miscounted"
    NOT_PAUSED = "not_paused"
    PAUSED = "paused"
    UNDECIDED = "undecided"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with `count` instants from `first` to `last`; `run_id` is the row's, if there is one."""

    kind: Kind
    first: datetime
    last: datetime
    count: int
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """The instants that were owed in (since, until], over all periods."""

    stretches: tuple[Stretch, ...]
    since: datetime
    until: datetime

    @classmethod
    def of(cls, periods: Sequence[Period], *, since: datetime, until: datetime) -> "Owed":
        """Return what these periods, in order, have owed after `since` and not after `until`."""
        parts = [
            Stretch(max(each.since, since), min(each.until or until, until), each.schedule, each.paused)
            for each in periods
            if each.schedule is not None
        ]
        return cls(tuple(each for each in parts if each.since < (each.until or until)), since, until)

    def after(self, moment: datetime) -> datetime | None:
        """Return the first instant later than a moment."""
        found = (stretch.after(moment) for stretch in self.stretches if (stretch.until or moment) > moment)
        return next((each for each in found if each is not None), None)

    def latest(self, moment: datetime) -> datetime | None:
        """Return the newest instant not later than a moment."""
        found = (stretch.latest(moment) for stretch in reversed(self.stretches))
        return next((each for each in found if each is not None), None)

    def count(self, after: datetime, until: datetime, *, paused: bool | None = None) -> int:
        """Return how many instants are later than `after` and not later than `until`, or the paused ones."""
        wanted = (each for each in self.stretches if paused is None or each.paused is paused)
        parts = ((each.schedule, each.clipped(after, until)) for each in wanted)
        return sum(schedule.count(*part) for schedule, part in parts if part is not None)

    def has(self, instant: datetime) -> bool:
        """Say whether this moment is an instant that was owed."""
        return instant.microsecond == 0 and self.latest(instant) == instant


def judged(owed: Owed, entries: Iterable[Entry]) -> Iterator[Fault]:
    """Yield what is wrong with a job's rows, given in order of their first instants, the widest first.

    Every instant has to lie in exactly one of them, and each of them to hold the instants that it says.
    """
    reached = owed.since
    for entry in entries:
        if entry.last > owed.until:
            yield Fault(Kind.UNDECIDED, entry.first, entry.last, entry.count, entry.run_id)
            continue
        due = owed.after(reached)
        if due != entry.first or entry.count > 1:
            yield from _unexpected(owed, reached, entry)
        yield from _paused(owed, entry)
        reached = max(reached, entry.last)
    yield from _lost(owed, reached, owed.until)


def _unexpected(owed: Owed, reached: datetime, entry: Entry) -> Iterator[Fault]:
    """Yield what is wrong with a row that is not simply the next instant."""

    def fault(kind: Kind) -> Fault:
        return Fault(kind, entry.first, entry.last, entry.count, entry.run_id)

    if entry.first <= reached:
        yield fault(Kind.TWICE)
        return
    yield from _lost(owed, reached, entry.first - SECOND)
    if not owed.has(entry.first) or not owed.has(entry.last):
        yield fault(Kind.BESIDE)
    elif owed.count(entry.first - SECOND, entry.last) != entry.count:
        yield fault(Kind.MISCOUNTED)


def _lost(owed: Owed, since: datetime, until: datetime) -> Iterator[Fault]:
    count = owed.count(since, until) if since < until else 0
    if count:
        first, last = owed.after(since), owed.latest(until)
        assert first is not None
        assert last is not None
        yield Fault(Kind.LOST, first, last, count)


def _paused(owed: Owed, entry: Entry) -> Iterator[Fault]:
    """Yield a row that did not skip what fell into a pause, or skipped for one what did not."""
    if (entry.state, entry.reason) == (RunState.SKIPPED, Reason.PAUSED):
        kind, count = Kind.PAUSED, _never_paused(owed, entry)
    else:
        kind, count = Kind.NOT_PAUSED, owed.count(entry.first - SECOND, entry.last, paused=True)
    if count:
        yield Fault(kind, entry.first, entry.last, count, entry.run_id)


def _never_paused(owed: Owed, entry: Entry) -> int:
    """Return how many instants of a row fell into no pause, and were not delayed into one either."""
    count = owed.count(entry.first - SECOND, entry.last, paused=False)
    for stretch, following in pairwise(owed.stretches) if count else ():
        if following.paused and not stretch.paused and stretch.until == following.since:
            newest = stretch.latest(following.since)
            count -= newest is not None and entry.first <= newest <= entry.last
    return count
