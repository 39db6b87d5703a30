"""A job's timetable: everything that says when it is due, as one value that can be stored and compared."""

import json
from collections.abc import Hashable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from scheduler.instants import FIRST_SECOND, LAST_SECOND, Instants, second_from, second_of
from scheduler.triggers import Line, Schedule, parse_line
from scheduler.zone_pieces import Fold, Gap


@dataclass(frozen=True, slots=True)
class JoinedSchedule(Instants):
    """All instants of some lines from second `first` to `last`; those that coincide are one."""

    lines: tuple[Line, ...]
    first: int = FIRST_SECOND
    last: int = LAST_SECOND

    @property
    def text(self) -> str:
        """The lines as they were written."""
        return ", ".join(line.text for line in self.lines)

    def anchored(self, first_seen: datetime) -> Self:
        """Return the schedule with its lines anchored."""
        return replace(self, lines=tuple(line.anchored(first_seen) for line in self.lines))

    def first_from(self, second: int) -> int | None:
        """See `Instants.first_from`."""
        found = [line.first_from(max(second, self.first)) for line in self.lines]
        due = min((each for each in found if each is not None), default=None)
        return due if due is not None and due <= self.last else None

    def last_to(self, second: int) -> int | None:
        """See `Instants.last_to`."""
        found = [line.last_to(min(second, self.last)) for line in self.lines]
        due = max((each for each in found if each is not None), default=None)
        return due if due is not None and due >= self.first else None

    def counted(self, first: int, last: int) -> int:
        """See `Instants.counted`; one line counts for itself."""
        first, last = max(first, self.first), min(last, self.last)
        if first > last:
            return 0
        if len(self.lines) == 1:
            return self.lines[0].counted(first, last)
        return super(JoinedSchedule, self).counted(first, last)

    def bits(self, day: int) -> int:
        """See `Instants.bits`, as if there were no first and no last second."""
        due = 0
        for line in self.lines:
            due |= line.bits(day)
        return due

    def shape(self, day: int) -> Hashable:
        """See `Instants.shape`."""
        return tuple(line.shape(day) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Timetable:
    """The lines of a job and what shapes them; `gap` and `fold` None mean classic cron's, the defaults.

    `start` and `end` are aware; both belong to the time between them.
    """

    lines: tuple[str, ...]
    timezone: str
    gap: Gap | None = None
    fold: Fold | None = None
    start: datetime | None = None
    end: datetime | None = None
    max_runs: int | None = None

    def key(self) -> str:
        """Return canonical JSON, equal for timetables that mean the same: defaults are left out."""
        said = {
            "lines": list(dict.fromkeys(" ".join(line.split()) for line in self.lines)),
            "timezone": self.timezone,
            "gap": self.gap if self.gap is not Gap.RUN_AFTER else None,
            "fold": self.fold if self.fold is not Fold.FIRST else None,
            "start": _written(self.start),
            "end": _written(self.end),
            "max_runs": self.max_runs,
        }
        kept = {name: value for name, value in said.items() if value is not None}
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_key(cls, text: str) -> Self:
        """Return the timetable of a key; raises ValueError for any other text."""
        try:
            return cls(**_read(json.loads(text)))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a timetable: {text!r}") from exc

    def schedule(self, *, now: datetime, anchor: datetime | None = None) -> Schedule:
        """Return when the job is due; raises ValueError that names the line that is wrong.

        `every` counts from `start`, which is its first instant, else from `anchor`, the job's first sight
        (without both, see `Schedule.anchored`). `now` is asked only whether a line ever comes.
        """
        if not self.lines:
            raise ValueError("a list of schedules has at least one line")
        lines = tuple(self._line(number, now) for number in range(len(self.lines)))
        bounded = self.start is not None or self.end is not None
        made: Schedule = self._joined(lines) if bounded or len(lines) > 1 else lines[0]
        return made if anchor is None else made.anchored(anchor)

    def _line(self, number: int, now: datetime) -> Line:
        text, zone = self.lines[number], _zone(self.timezone)
        gap, fold = self.gap or Gap.RUN_AFTER, self.fold or Fold.FIRST
        try:
            return parse_line(text, zone, now=now, gap=gap, fold=fold, start=self.start)
        except ValueError as exc:
            which = f"line {number + 1} of {len(self.lines)}, {text!r}: " if len(self.lines) > 1 else ""
            raise ValueError(f"{which}{exc}") from exc

    def _joined(self, lines: tuple[Line, ...]) -> JoinedSchedule:
        first = FIRST_SECOND if self.start is None else max(FIRST_SECOND, second_from(self.start))
        last = LAST_SECOND if self.end is None else min(LAST_SECOND, second_of(self.end))
        joined = JoinedSchedule(lines, first, last)
        if first > last or joined.first_from(first) is None:
            raise ValueError("this never comes: nothing is due between `start` and `end`")
        return joined


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as exc:
        raise ValueError(f"no time zone is called {name!r} here; see `timedatectl list-timezones`") from exc


def _written(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    near = FIRST_SECOND <= second_of(moment) <= LAST_SECOND  # what is far away may have no UTC
    return (moment.astimezone(UTC) if near else moment).isoformat()


def _read(said: dict[str, Any]) -> dict[str, Any]:
    start, end = said.get("start"), said.get("end")
    if not isinstance(said["lines"], list):
        raise TypeError("lines are a list")
    return {
        "lines": tuple(line.strip() for line in said["lines"]),
        "timezone": said["timezone"],
        "gap": Gap(said["gap"]) if "gap" in said else None,
        "fold": Fold(said["fold"]) if "fold" in said else None,
        "start": datetime.fromisoformat(start) if start else None,
        "end": datetime.fromisoformat(end) if end else None,
        "max_runs": said.get("max_runs"),
    }
