"""How late is too late: the misfire grace time of what fell due while a daemon was planning."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from scheduler.periods import SECOND, Stretch, Timeline, room_after

LEAST_GRACE = timedelta(minutes=2)
MOST_GRACE = timedelta(hours=2)
MOST_ASKED = 100
_INSTANT = timedelta(microseconds=1)


def grace_of(period: timedelta | None) -> timedelta:
    """Return the default grace time: half the period (None: endless), within 2 minutes and 2 hours."""
    return min(max(period / 2, LEAST_GRACE), MOST_GRACE) if period is not None else MOST_GRACE


def late_until(line: Timeline, *, now: datetime, grace: timedelta | None) -> datetime:
    """Return the moment up to which instants are late by their grace time, or by the least default one."""
    return line.fallen_by(now - (LEAST_GRACE if grace is None else grace) - _INSTANT)


def spared(line: Timeline, since: datetime, until: datetime, *, now: datetime) -> Iterator[datetime]:
    """Yield, in order, the instants later than `since` and not later than `until` that half a period spares.

    The period is the time to the next instant. When that has come too, more than half of it is over: only a
    stretch's newest instant can be in time, and those before it that jitter moved behind it.
    """
    for stretch in line.stretches:
        if not stretch.paused:
            yield from reversed(list(_spared(line, stretch, since, until, now=now)))


def _spared(
    line: Timeline, stretch: Stretch, since: datetime, until: datetime, *, now: datetime
) -> Iterator[datetime]:
    instant = stretch.latest(until)
    for _ in range(MOST_ASKED):
        if instant is None or instant <= since:
            return
        if now - line.due(instant) <= grace_of(room_after(stretch.schedule, instant)):
            yield instant
        if 2 * (now - instant) >= line.jitter:
            return
        instant = stretch.latest(instant - SECOND)
