"""Schedules: a line of text in, its due instants out. Instants are whole seconds in UTC."""

import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol, Self
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from jobs.providers.rows import duration
from scheduler.cron_schedule import CronSchedule
from scheduler.instants import (
    DAY,
    FIRST_SECOND,
    LAST_SECOND,
    WHOLE_DAY,
    Instants,
    moment_of,
    second_from,
    second_of,
)
from scheduler.zone_pieces import CHUNK, Fold, Gap, pieces

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
_TOO_FAR = "a time too far away; choose one within the years 1970 to 9998"


class Schedule(Protocol):
    """When a job is due: a set of whole UTC seconds within the years 1970 to 9998."""

    @property
    def text(self) -> str:
        """The lines as they were written."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first due instant later than `moment` (aware), or None when there is none."""

    def latest(self, moment: datetime) -> datetime | None:
        """Return the newest due instant not later than `moment` (aware), or None when there is none."""

    def count(self, after: datetime, until: datetime) -> int:
        """Return how many instants are later than `after` and not later than `until`, without a walk."""

    def anchored(self, first_seen: datetime) -> "Schedule":
        """Return the schedule with its origin, where it has none of its own: the job's first sight."""


@dataclass(frozen=True, slots=True)
class EverySchedule(Instants):
    """Every so many whole seconds of elapsed time, counted from an origin that restarts do not shift.

    With a `start` that is the first instant. Else the first one is a period after the `origin`.
    """

    text: str
    period: timedelta
    origin: datetime | None = None
    start: datetime | None = None

    def anchored(self, first_seen: datetime) -> Self:
        """Return the schedule counted from `first_seen`, unless it already has a start or an origin."""
        return self if self.origin or self.start else replace(self, origin=first_seen)

    def first_from(self, second: int) -> int | None:
        """See `Instants.first_from`."""
        origin, period = self._numbers()
        return origin + max(-((origin - second) // period), 1) * period

    def last_to(self, second: int) -> int | None:
        """See `Instants.last_to`."""
        origin, period = self._numbers()
        return origin + (second - origin) // period * period if second >= origin + period else None

    def counted(self, first: int, last: int) -> int:
        """See `Instants.counted`: by arithmetic."""
        origin, period = self._numbers()
        return max(0, (last - origin) // period) - max(0, (first - 1 - origin) // period)

    def bits(self, day: int) -> int:
        """See `Instants.bits`."""
        first = self.first_from(day * DAY)
        assert first is not None
        if first >= (day + 1) * DAY:
            return 0
        return _every(self._numbers()[1]) << first - day * DAY & WHOLE_DAY

    def shape(self, day: int) -> Hashable:
        """See `Instants.shape`: told by its first instant, which the others follow evenly."""
        first = self.first_from(day * DAY)
        assert first is not None
        return first - day * DAY if first < (day + 1) * DAY else None

    def _numbers(self) -> tuple[int, int]:
        """Return the second from which whole periods are counted, from one on, and the period."""
        period = self.period // timedelta(seconds=1)
        if self.start:
            return second_from(self.start) - period, period
        return second_of(self.origin) if self.origin else 0, period


@dataclass(frozen=True, slots=True)
class AtSchedule(Instants):
    """Due once, also where the local time exists twice.

    `zone` is the job's, whose local time is written; None where the line names an offset of its own.
    """

    text: str
    moment: datetime
    zone: ZoneInfo | None = None

    def anchored(self, first_seen: datetime) -> Self:
        """A moment needs no origin."""
        return self

    def names(self, moment: datetime) -> bool:
        """Say whether the line itself names the local time of a moment."""
        written = datetime.fromisoformat(self.text.partition(" ")[2])
        return written.tzinfo is not None or written == moment.astimezone(self.zone).replace(tzinfo=None)

    def first_from(self, second: int) -> int | None:
        """See `Instants.first_from`."""
        return at if (at := second_of(self.moment)) >= second else None

    def last_to(self, second: int) -> int | None:
        """See `Instants.last_to`."""
        return at if (at := second_of(self.moment)) <= second else None

    def counted(self, first: int, last: int) -> int:
        """See `Instants.counted`."""
        return int(first <= second_of(self.moment) <= last)

    def bits(self, day: int) -> int:
        """See `Instants.bits`."""
        second = second_of(self.moment) - day * DAY
        return 1 << second if 0 <= second < DAY else 0

    def shape(self, day: int) -> Hashable:
        """See `Instants.shape`."""
        return day if second_of(self.moment) // DAY == day else None


@lru_cache(maxsize=64)
def _every(period: int) -> int:
    """Return a day's bits of which each `period`th is set, from the first on."""
    bits, length = 1, period
    while length < DAY:
        bits |= bits << length
        length *= 2
    return bits & WHOLE_DAY


Line = CronSchedule | EverySchedule | AtSchedule


def parse_schedule(text: str, zone: ZoneInfo, *, now: datetime) -> Schedule:
    """Read one schedule line, as `parse_line` does, with the usual daylight saving and without a start."""
    return parse_line(text, zone, now=now)


def parse_line(
    text: str,
    zone: ZoneInfo,
    *,
    now: datetime,
    gap: Gap = Gap.RUN_AFTER,
    fold: Fold = Fold.FIRST,
    start: datetime | None = None,
) -> Line:
    """Read one schedule line; raises ValueError that says what is wrong and what would be right.

    `every` counts from `start`, which is its first instant; the other lines do not ask for it.
    """
    line = " ".join(text.split())
    word, _, rest = line.partition(" ")
    match word.lower():
        case "every":
            return EverySchedule(line, duration(rest.replace(" ", "")), start=start)
        case "at":
            return _at(line, rest, zone, gap=gap, fold=fold)
        case "@reboot":
            raise ValueError("@reboot is not a time; use `every 1d`, or start the job from a systemd unit")
        case nickname if nickname in _NICKNAMES and not rest:
            return CronSchedule(line, _NICKNAMES[nickname], zone, gap, fold)
        case unknown if unknown.startswith("@"):
            raise ValueError(f"{word} is unknown; there are {', '.join(sorted(_NICKNAMES))}")
        case _:
            return _cron(line, zone, now, gap=gap, fold=fold)


def _at(line: str, rest: str, zone: ZoneInfo, *, gap: Gap, fold: Fold) -> Line:
    if not _AT_FORMS.fullmatch(rest):
        raise ValueError("a moment is written as `at 2026-12-01T09:00`")
    moment = datetime.fromisoformat(rest)
    try:
        second = second_of(moment) if moment.tzinfo else _settled(moment, zone, gap=gap, fold=fold)
    except OverflowError as exc:
        raise ValueError(_TOO_FAR) from exc
    if second is None:
        raise ValueError(
            f"{rest} does not exist in {zone.key}: the clock is set forward over it, and `gap: skip` leaves "
            "it out; choose another time, or `gap: run_after`"
        )
    if not FIRST_SECOND <= second <= LAST_SECOND:
        raise ValueError(_TOO_FAR)
    return AtSchedule(line, moment_of(second), None if moment.tzinfo else zone)


def _settled(local: datetime, zone: ZoneInfo, *, gap: Gap, fold: Fold) -> int | None:
    """Return the second at which a local time comes, the first one unless `fold` says the last.

    None where it is skipped.
    """
    plain = local.replace(tzinfo=zone)
    first, second = (second_of(plain.replace(fold=each)) for each in (0, 1))  # PEP 495: both offsets
    if first == second:
        return first
    if first > second:  # it does not exist: fold 0 is read with the offset before the change
        near = pieces(zone, second // CHUNK, Gap.RUN_AFTER, Fold.BOTH) + pieces(
            zone, first // CHUNK, Gap.RUN_AFTER, Fold.BOTH
        )
        change = next(each.begin for each in near if each.made_up and second < each.begin <= first)
        return change if gap is Gap.RUN_AFTER else None
    return second if fold is Fold.LAST else first


def _cron(line: str, zone: ZoneInfo, now: datetime, *, gap: Gap, fold: Fold) -> Line:
    if len(line.split()) not in _CRON_FIELDS:
        raise ValueError(
            "five cron fields are wanted, such as `0 7 * * mon-fri`, or `every 90s`, `at …`, `@daily`"
        )
    try:
        schedule = CronSchedule(line, line, zone, gap, fold)
    except CronSimError as exc:
        raise ValueError(f"not a cron line: {exc}") from exc
    if schedule.after(now) is None:
        raise ValueError("this line never comes; check its day and month")
    return schedule
