"""Schedules: a line of text in, the next due instant out. Instants are whole seconds in UTC."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from jobs.providers.rows import duration

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CRON_FIELDS = (5, 6)
_AT_FORMS = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?")


class Schedule(Protocol):
    """When a job is due: a set of whole UTC seconds."""

    @property
    def text(self) -> str:
        """The line as it was written."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first due instant later than `moment` (aware), or None when there is none."""

    def anchored(self, first_seen: datetime) -> "Schedule":
        """Return the schedule with its origin, where it has none of its own: the job's first sight."""


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """A line as Debian's cron reads it, in the job's zone; cronsim settles daylight saving as cron does."""

    text: str
    line: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """See `Schedule.after`. Asked of cronsim, which steps in local time and repeats no instant."""
        for local in CronSim(self.line, moment.astimezone(self.zone)):
            following = local.astimezone(UTC)
            if following > moment:  # a repeated hour starts over in local time: its instants have been
                return following
        return None

    def anchored(self, first_seen: datetime) -> Schedule:
        """Cron lines need no origin."""
        return self


@dataclass(frozen=True, slots=True)
class EverySchedule:
    """Every so many whole seconds of elapsed time, counted from an origin that restarts do not shift."""

    text: str
    period: timedelta
    origin: datetime | None = None

    def after(self, moment: datetime) -> datetime | None:
        """See `Schedule.after`; the first instant is one period after the origin."""
        origin = self.origin or datetime.fromtimestamp(0, UTC)
        if moment < origin:
            return origin + self.period
        return origin + ((moment - origin) // self.period + 1) * self.period

    def anchored(self, first_seen: datetime) -> Schedule:
        """Return the schedule counted from `first_seen`, unless it already has an origin."""
        return self if self.origin else replace(self, origin=first_seen.replace(microsecond=0))


@dataclass(frozen=True, slots=True)
class AtSchedule:
    """Due once."""

    text: str
    moment: datetime

    def after(self, moment: datetime) -> datetime | None:
        """See `Schedule.after`."""
        return self.moment if moment < self.moment else None

    def anchored(self, first_seen: datetime) -> Schedule:
        """A moment needs no origin."""
        return self


def parse_schedule(text: str, zone: ZoneInfo, *, now: datetime) -> Schedule:
    """Read one schedule line; raises ValueError that says what is wrong and what would be right."""
    line = " ".join(text.split())
    word, _, rest = line.partition(" ")
    match word.lower():
        case "every":
            return _every(line, rest)
        case "at":
            return _at(line, rest, zone)
        case "@reboot":
            raise ValueError("@reboot is not a time; use `every 1d`, or start the job from a systemd unit")
        case nickname if nickname in _NICKNAMES and not rest:
            return CronSchedule(line, _NICKNAMES[nickname], zone)
        case unknown if unknown.startswith("@"):
            raise ValueError(f"{word} is unknown; there are {', '.join(sorted(_NICKNAMES))}")
        case _:
            return _cron(line, zone, now)


def _every(line: str, rest: str) -> Schedule:
    return EverySchedule(line, duration(rest.replace(" ", "")))


def _at(line: str, rest: str, zone: ZoneInfo) -> Schedule:
    if not _AT_FORMS.fullmatch(rest):
        raise ValueError("a moment is written as `at 2026-12-01T09:00`")
    moment = datetime.fromisoformat(rest)
    local = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return AtSchedule(line, local.astimezone(UTC))


def _cron(line: str, zone: ZoneInfo, now: datetime) -> Schedule:
    if len(line.split()) not in _CRON_FIELDS:
        raise ValueError(
            "five cron fields are wanted, such as `0 7 * * mon-fri`, or `every 90s`, `at …`, `@daily`"
        )
    try:
        schedule = CronSchedule(line, line, zone)
        following = schedule.after(now)
    except CronSimError as exc:
        raise ValueError(f"not a cron line: {exc}") from exc
    if following is None:
        raise ValueError("this line never comes; check its day and month")
    return schedule
