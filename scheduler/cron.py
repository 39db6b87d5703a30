"""Cron lines in plain local time: which local seconds a line names, as if no clock were ever changed.

A local second is a date and a time of day, counted from 1970-01-01T00:00 as if it were UTC.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

from cronsim import CronSim

DAY = 86_400
_HOUR, _MINUTE = 3_600, 60
_FIRST_DAY = date(1970, 1, 1).toordinal()
_LAST_YEAR = 9999
_MONTHS = 12
_MONTHS_AHEAD = 50 * _MONTHS  # 29 February on a given weekday can be 40 years away


@dataclass(frozen=True, slots=True, eq=False)
class CronFields:
    """What a line says: bit n of a mask is second, minute or hour n. `days` knows the three day fields.

    `fixed`: the line names times of day. One whose second, minute or hour begins with `*` follows elapsed
    time; so it is in Debian's cron (the flags MIN_STAR and HR_STAR of its entry.c, used in cron.c).
    """

    seconds: int
    minutes: int
    hours: int
    days: CronSim
    fixed: bool

    def first_from(self, local: int) -> int | None:
        """Return the first local second named that is not before `local`; None in 50 years."""
        day, time = divmod(local, DAY)
        if self.names_day(day) and (found := self._first_time(time)) is not None:
            return day * DAY + found
        following = self._first_day(day + 1)
        found = self._first_time(0)
        return None if following is None or found is None else following * DAY + found

    def last_to(self, local: int) -> int | None:
        """Return the last local second named that is not after `local`; None in 50 years."""
        day, time = divmod(local, DAY)
        if self.names_day(day) and (found := self._last_time(time)) is not None:
            return day * DAY + found
        earlier = self._last_day(day - 1)
        found = self._last_time(DAY - 1)
        return None if earlier is None or found is None else earlier * DAY + found

    def names_day(self, day: int) -> bool:
        """Say whether the day fields name a day, given in days since 1970-01-01."""
        at = date.fromordinal(day + _FIRST_DAY)
        return bool(_named_days(self.days, at.year, at.month) >> at.day & 1)

    def times(self) -> int:
        """Return the times of a named day: bit n is second n of the day."""
        return _times(self.seconds, self.minutes, self.hours)

    def _first_time(self, since: int) -> int | None:
        hour, rest = divmod(since, _HOUR)
        minute, second = divmod(rest, _MINUTE)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (at := _lowest(self.seconds, second)) is not None:
                return hour * _HOUR + minute * _MINUTE + at
            if (at := _lowest(self.minutes, minute + 1)) is not None:
                return hour * _HOUR + at * _MINUTE + _bottom(self.seconds)
        if (at := _lowest(self.hours, hour + 1)) is None:
            return None
        return at * _HOUR + _bottom(self.minutes) * _MINUTE + _bottom(self.seconds)

    def _last_time(self, until: int) -> int | None:
        hour, rest = divmod(until, _HOUR)
        minute, second = divmod(rest, _MINUTE)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (at := _highest(self.seconds, second)) is not None:
                return hour * _HOUR + minute * _MINUTE + at
            if (at := _highest(self.minutes, minute - 1)) is not None:
                return hour * _HOUR + at * _MINUTE + _top(self.seconds)
        if (at := _highest(self.hours, hour - 1)) is None:
            return None
        return at * _HOUR + _top(self.minutes) * _MINUTE + _top(self.seconds)

    def _first_day(self, since: int) -> int | None:
        at = date.fromordinal(since + _FIRST_DAY)
        year, month, day = at.year, at.month, at.day
        for _ in range(_MONTHS_AHEAD):
            if (found := _lowest(_named_days(self.days, year, month), day)) is not None:
                return date(year, month, found).toordinal() - _FIRST_DAY
            year, month, day = (year, month + 1, 1) if month < _MONTHS else (year + 1, 1, 1)
            if year > _LAST_YEAR:
                return None
        return None

    def _last_day(self, until: int) -> int | None:
        at = date.fromordinal(until + _FIRST_DAY)
        year, month, day = at.year, at.month, at.day
        for _ in range(_MONTHS_AHEAD):
            if (found := _highest(_named_days(self.days, year, month), day)) is not None:
                return date(year, month, found).toordinal() - _FIRST_DAY
            year, month, day = (year, month - 1, 31) if month > 1 else (year - 1, _MONTHS, 31)
        return None


def read_cron(line: str) -> CronFields:
    """Read a line of five or six fields; raises CronSimError for one that means nothing."""
    fields = line.split()
    read = CronSim(line, datetime(2000, 1, 1))  # the moment does not matter: it is used as a parser only
    days = _days(" ".join(fields[-3:]).upper())
    return CronFields(
        seconds=_mask(read.seconds),
        minutes=_mask(read.minutes),
        hours=_mask(read.hours),
        days=days,
        fixed=not any(field.startswith("*") for field in fields[:-3]),
    )


@lru_cache(maxsize=4096)
def _days(day_fields: str) -> CronSim:
    """Return a reader of day, month and weekday, shared by all lines that say the same: they are large."""
    return CronSim(f"0 0 {day_fields}", datetime(2000, 1, 1))


@lru_cache(maxsize=16_384)
def _named_days(days: CronSim, year: int, month: int) -> int:
    """Return the days of a month that are named: bit n is day n."""
    if month not in days.months:
        return 0
    first = date(year, month, 1).toordinal()
    following = date(year, month + 1, 1) if month < _MONTHS else None
    length = following.toordinal() - first if following else 31
    return sum(1 << day for day in range(1, length + 1) if days.match_day(date(year, month, day)))


@lru_cache(maxsize=64)
def _times(seconds: int, minutes: int, hours: int) -> int:
    hour = sum(seconds << minute * _MINUTE for minute in range(60) if minutes >> minute & 1)
    return sum(hour << at * _HOUR for at in range(24) if hours >> at & 1)


def _mask(named: set[int]) -> int:
    return sum(1 << number for number in named)


def _lowest(mask: int, since: int) -> int | None:
    left = mask >> since
    return since + _bottom(left) if left else None


def _highest(mask: int, until: int) -> int | None:
    left = mask & ((2 << until) - 1) if until >= 0 else 0
    return _top(left) if left else None


def _bottom(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _top(mask: int) -> int:
    return mask.bit_length() - 1
