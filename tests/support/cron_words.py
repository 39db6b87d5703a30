"""A second reader of cron lines, written from crontab(5): five fields, and whether they name a local minute.

It is the judge of ours, and shares nothing with it.
"""

import calendar
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class CronWords:
    """What a line says. `wild`: minute or hour begins with a star, so it follows elapsed time."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    day_named: Callable[[datetime], bool]
    wild: bool

    def name(self, local: datetime) -> bool:
        """Say whether the line names a local minute."""
        time = local.minute in self.minutes and local.hour in self.hours
        return time and local.month in self.months and self.day_named(local)


def read(line: str) -> CronWords:
    """Read five fields."""
    minute, hour, day, month, weekday = line.lower().split()

    def by_day(local: datetime) -> bool:
        return any(_is_day(part, local) for part in day.split(","))

    def by_weekday(local: datetime) -> bool:
        return any(_is_weekday(part, local) for part in weekday.split(","))

    both = day.startswith("*") or weekday.startswith("*")  # else either of them is enough
    return CronWords(
        minutes=_numbers(minute, 0, 59),
        hours=_numbers(hour, 0, 23),
        months=_numbers(month, 1, 12, MONTHS, 1),
        day_named=lambda local: (all if both else any)((by_day(local), by_weekday(local))),
        wild=minute.startswith("*") or hour.startswith("*"),
    )


def _numbers(text: str, least: int, most: int, names: tuple[str, ...] = (), first: int = 0) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        begin, _, end = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = _number(begin, names, first)
            high = _number(end, names, first) if end else (most if step else low)
        found.update(range(low, high + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, names: tuple[str, ...], first: int) -> int:
    return names.index(text) + first if text in names else int(text)


def _is_day(part: str, local: datetime) -> bool:
    if part == "l":
        return local.day == calendar.monthrange(local.year, local.month)[1]
    return local.day in _numbers(part, 1, 31)


def _is_weekday(part: str, local: datetime) -> bool:
    weekday = local.isoweekday() % 7
    if "#" in part:
        name, _, number = part.partition("#")
        return _number(name, WEEKDAYS, 0) % 7 == weekday and (local.day - 1) // 7 + 1 == int(number)
    if part.endswith("l"):
        last = calendar.monthrange(local.year, local.month)[1]
        return int(part[:-1]) % 7 == weekday and local.day > last - 7
    return weekday in {number % 7 for number in _numbers(part, 0, 7, WEEKDAYS)}
