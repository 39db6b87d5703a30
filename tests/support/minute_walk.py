"""Time walked minute by minute in UTC: which minutes a line names, with missing and repeated hours settled.

It asks only what the clock on the wall shows at each minute. Zones change their clocks at whole minutes.
"""

from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from zoneinfo import ZoneInfo, available_timezones

from tests.support.cron_words import read

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
Changes = tuple[tuple[datetime, timedelta], ...]


class Walk:
    """Every minute from `since` to `until`, and what the clock in a zone shows then."""

    def __init__(self, zone: str, since: datetime, until: datetime) -> None:
        self.zone, here = zone, ZoneInfo(zone)
        self.minutes = [since + MINUTE * number for number in range((until - since) // MINUTE + 1)]
        self.shown = [minute.astimezone(here).replace(tzinfo=None, fold=0) for minute in self.minutes]

    @cached_property
    def comes(self) -> dict[datetime, list[datetime]]:
        """Each local minute with the UTC minutes at which it comes."""
        found: dict[datetime, list[datetime]] = {}
        for minute, shown in zip(self.minutes, self.shown, strict=True):
            found.setdefault(shown, []).append(minute)
        return found

    @cached_property
    def left_out(self) -> dict[datetime, datetime]:
        """Each local minute that does not exist with the UTC minute right after it."""
        found = {}
        for minute, before, shown in zip(self.minutes[1:], self.shown, self.shown[1:], strict=False):
            missing = before + MINUTE
            while missing < shown:
                found[missing] = minute
                missing += MINUTE
        return found

    def due(
        self,
        line: str,
        *,
        gap: str = "run_after",
        fold: str = "first",
        origin: datetime,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> set[datetime]:
        """Return the minutes of this walk at which a line is due; `every` counts minutes from `origin`."""
        word, _, rest = line.partition(" ")
        match word:
            case "every":
                period = timedelta(minutes=int(rest.removesuffix("m")))
                since = start or origin + period
                due = {each for each in self.minutes if each >= since and (each - since) % period == 0 * DAY}
            case "at":
                named = datetime.fromisoformat(rest)
                once = "last" if fold == "last" else "first"
                due = self._settled(lambda local: local == named, gap, once)
            case _:
                words = read(line)
                if words.wild:
                    pairs = zip(self.minutes, self.shown, strict=True)
                    due = {minute for minute, shown in pairs if words.name(shown)}
                else:
                    due = self._settled(words.name, gap, fold)
        return {each for each in due if (start is None or each >= start) and (end is None or each <= end)}

    def _settled(self, name: Callable[[datetime], bool], gap: str, fold: str) -> set[datetime]:
        due: set[datetime] = set()
        for shown, minutes in self.comes.items():
            if name(shown):
                due.update({"first": minutes[:1], "last": minutes[-1:], "both": minutes}[fold])
        if gap == "run_after":
            due.update(minute for missing, minute in self.left_out.items() if name(missing))
        return due


def changes_of(zone: str, since: datetime, until: datetime) -> Changes:
    """Return when a zone changes its offset, and the offset from then on."""
    found, here, at = [], ZoneInfo(zone), since
    before = at.astimezone(here).utcoffset()
    while at < until:
        following = at + DAY
        after = following.astimezone(here).utcoffset()
        if after != before:
            assert after is not None
            found.append((_changes_at(at, here, after), after))
        before, at = after, following
    return tuple(found)


def _changes_at(day: datetime, zone: ZoneInfo, after: timedelta) -> datetime:
    """Return the first minute of a day that begins at `day` at which the clock shows the later offset."""

    def has_changed(number: int) -> bool:
        return (day + MINUTE * number).astimezone(zone).utcoffset() == after

    return day + MINUTE * (1 + bisect_left(range(1, 1441), True, key=has_changed))


@cache
def zones_that_change(since: datetime, until: datetime, *, alike: bool) -> dict[str, Changes]:
    """Return the zones with a change between two moments; all that are alike, or the first one by name."""
    found: dict[str, Changes] = {}
    known: set[Changes] = set()
    for zone in sorted(available_timezones() - {"localtime"}):
        made = changes_of(zone, since.astimezone(UTC), until)
        if made and (alike or made not in known):
            known.add(made)
            found[zone] = made
    return found
