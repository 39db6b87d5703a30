"""What a job owes over time: timetables one after the other, pauses, and when an instant falls due."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Self

from scheduler.jitter import delay
from scheduler.triggers import Schedule

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """Instants later than `since` and not later than `until` are owed by `schedule`; None owes nothing.

    `until` None: it still stands. In a `paused` one they are skipped.
    """

    since: datetime
    until: datetime | None
    schedule: Schedule | None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """A period that owes something."""

    since: datetime
    until: datetime | None
    schedule: Schedule
    paused: bool = False

    def after(self, moment: datetime) -> datetime | None:
        """Return the first instant of this stretch later than `moment`."""
        found = self.schedule.after(max(moment, self.since))
        return found if found is not None and (self.until is None or found <= self.until) else None

    def latest(self, moment: datetime) -> datetime | None:
        """Return the newest instant of this stretch not later than `moment`."""
        found = self.schedule.latest(moment if self.until is None else min(moment, self.until))
        return found if found is not None and found > self.since else None

    def clipped(self, since: datetime, until: datetime) -> tuple[datetime, datetime] | None:
        """Return what of this stretch lies between two moments, or None for nothing."""
        begin = max(since, self.since)
        end = until if self.until is None else min(until, self.until)
        return (begin, end) if begin < end else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stretches of one job, in order and apart, with its name and jitter."""

    stretches: tuple[Stretch, ...]
    job: str
    jitter: timedelta

    @classmethod
    def of(cls, periods: Sequence[Period], *, cursor: datetime, job: str, jitter: timedelta) -> Self:
        """Return what is owed after `cursor`.

        What is paused before its delay has passed is skipped like what falls into the pause.
        """
        left = [each for each in periods if each.until is None or each.until > cursor]
        stretches: list[Stretch] = []
        for period, following in zip_longest(left, left[1:]):
            if period.schedule is not None:
                stretch = Stretch(period.since, period.until, period.schedule, period.paused)
                interrupted = jitter and following is not None and following.paused
                stretches += _interrupted(stretch, job, jitter) if interrupted else [stretch]
        return cls(tuple(stretches), job, jitter)

    def after(self, moment: datetime) -> datetime | None:
        """Return the first instant later than `moment`, paused or not."""
        found = (stretch.after(moment) for stretch in self.stretches)
        return next((each for each in found if each is not None), None)

    def start_after(self, moment: datetime) -> datetime | None:
        """Return the first instant later than `moment` that is to run: no paused one."""
        found = (stretch.after(moment) for stretch in self.stretches if not stretch.paused)
        return next((each for each in found if each is not None), None)

    def latest(self, moment: datetime) -> datetime | None:
        """Return the newest instant not later than `moment` that is to run: no paused one."""
        found = (stretch.latest(moment) for stretch in reversed(self.stretches) if not stretch.paused)
        return next((each for each in found if each is not None), None)

    def due(self, instant: datetime) -> datetime:
        """Return when an instant falls due: after its delay, but when its period ends at the latest."""
        stretch = self._stretch(instant)
        if stretch.paused or not self.jitter:
            return instant
        falls_due = instant + delay_of(stretch.schedule, instant, job=self.job, jitter=self.jitter)
        return falls_due if stretch.until is None else min(falls_due, stretch.until)

    def fallen_by(self, moment: datetime) -> datetime:
        """Return the moment up to which all that is to run has fallen due by `moment`.

        A delay is shorter than the time to the next instant: only the newest one can still be pending.
        """
        newest = self.latest(moment)
        return newest - SECOND if newest is not None and self.due(newest) > moment else moment

    def _stretch(self, instant: datetime) -> Stretch:
        return next(
            each
            for each in self.stretches
            if each.since < instant and (each.until is None or instant <= each.until)
        )


def room_after(schedule: Schedule, instant: datetime) -> timedelta | None:
    """Return the time to the next instant, None where there is none."""
    following = schedule.after(instant)
    return following - instant if following is not None else None


def delay_of(schedule: Schedule, instant: datetime, *, job: str, jitter: timedelta) -> timedelta:
    """Return by how much later than its instant a job falls due: less than `jitter`, and before the next."""
    room = room_after(schedule, instant)
    return delay(job, instant, limit=jitter if room is None else min(jitter, room))


def _interrupted(stretch: Stretch, job: str, jitter: timedelta) -> list[Stretch]:
    """Return a stretch before a pause; what is delayed into the pause is paused."""
    newest = stretch.latest(stretch.until) if stretch.until is not None and not stretch.paused else None
    if newest is None or stretch.until is None:
        return [stretch]
    if newest + delay_of(stretch.schedule, newest, job=job, jitter=jitter) <= stretch.until:
        return [stretch]
    before = newest - SECOND
    return [replace(stretch, until=before), replace(stretch, since=before, paused=True)]
