"""Noticing that the wall clock, or the machine's zone, is another than a moment ago."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs import clock
from scheduler.config.places import machine_zone
from scheduler.config.settings import Settings

NOTICED = timedelta(seconds=1)
_NONE = timedelta()


@dataclass(frozen=True, slots=True)
class Step:
    """How far the clock was set forward (back: less than nothing), and what it showed then or just before."""

    by: timedelta
    to: datetime

    def __str__(self) -> str:
        way = "forward" if self.by > _NONE else "back"
        return f"{way} by {timedelta(seconds=round(abs(self.by).total_seconds()))}"


class ClockSteps:
    """Compares the wall clock with the monotonic one each time it is asked."""

    def __init__(self) -> None:
        self._wall, self._monotonic = clock.utcnow(), clock.monotonic()

    def step(self) -> Step | None:
        """Return by how much the clock was set since the last call, None where it was not.

        A suspend is a step forward: the monotonic clock stands still in it (clock_gettime(2)).
        """
        wall, monotonic = clock.utcnow(), clock.monotonic()
        passed = timedelta(seconds=monotonic - self._monotonic)
        by = (wall - self._wall) - passed
        self._wall, self._monotonic = wall, monotonic
        return Step(by, wall - passed) if abs(by) >= NOTICED else None


def zone_changed(settings: Settings) -> bool:
    """Say whether the machine's zone is another one, where the configuration names none of its own."""
    return settings.follows_machine_zone and machine_zone().key != settings.timezone.key
