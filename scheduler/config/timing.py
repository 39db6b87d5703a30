"""When jobs are due: what is written becomes timetables and schedules, each made once, with its faults."""

from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.job_forms import in_utc
from scheduler.config.merged import Merged
from scheduler.config.texts import moved
from scheduler.timetable import Timetable
from scheduler.triggers import Schedule

SUCH_AS = "such as `0 7 * * mon-fri`, `@daily`, `every 90s`, `at 2026-12-01T09:00`"


@dataclass(slots=True)
class Timing:
    """Makes schedules; jobs with the same timetable share one."""

    merged: Merged
    now: datetime
    faults: Faults
    _schedules: dict[Timetable, Schedule | ValueError] = field(default_factory=dict)

    def of(self, written: WrittenJob, zone: ZoneInfo) -> tuple[Timetable, Schedule] | None:
        """Return a job's timetable and what is made of it; None for a job without, or with faults."""
        lines = written.row.schedule
        if lines is None or self.faults.under(written.document, (*written.path, "schedule")):
            return None
        timetable = self._timetable(written, lines, zone)
        if timetable.start and timetable.end and timetable.end <= timetable.start:
            document, place = self.merged.place(written, "end")
            self.faults.add(document, place, "is not later than start", "write a later moment")
            return None
        made = self._made(timetable)
        if isinstance(made, ValueError):
            self._tell(written, timetable, made)
            return None
        return timetable, made

    def _timetable(self, written: WrittenJob, lines: tuple[str, ...], zone: ZoneInfo) -> Timetable:
        pick = self.merged.pick
        dst, start, end = (pick(written.row, key) for key in ("dst", "start", "end"))
        return Timetable(
            lines=tuple(map(moved, lines)),
            timezone=zone.key,
            gap=dst.gap,
            fold=dst.fold,
            start=in_utc(start, zone) if start else None,
            end=in_utc(end, zone) if end else None,
            max_runs=pick(written.row, "max_runs"),
        )

    def _made(self, timetable: Timetable) -> Schedule | ValueError:
        made = self._schedules.get(timetable)
        if made is None:
            made = self._schedules[timetable] = _schedule(timetable, self.now)
        return made

    def _tell(self, written: WrittenJob, timetable: Timetable, fault: ValueError) -> None:
        """Note what is wrong, in a list at each line that is wrong by itself."""
        path = (*written.path, "schedule")
        if not written.document.holds((*path, 0)):
            self._add(written, path, fault)
            return
        for number, line in enumerate(timetable.lines):
            alone = self._made(
                Timetable((line,), timetable.timezone, timetable.gap, timetable.fold, timetable.start)
            )
            if isinstance(alone, ValueError):
                self._add(written, (*path, number), alone)
        if not self.faults.under(written.document, path):
            self._add(written, path, fault)

    def _add(self, written: WrittenJob, path: tuple[str | int, ...], fault: ValueError) -> None:
        wrong, _, mend = str(fault).partition("; ")
        self.faults.add(written.document, path, wrong, mend or SUCH_AS)


def _schedule(timetable: Timetable, now: datetime) -> Schedule | ValueError:
    try:
        return timetable.schedule(now=now)
    except ValueError as exc:
        return exc
    except OverflowError:
        return ValueError("a time too far away; choose one within the years 1970 to 9000")
