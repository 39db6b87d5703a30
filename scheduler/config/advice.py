"""What works and is not wise: keys that do nothing beside others, and schedules that are over."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from jobs.definition import Job, Retry
from scheduler.config.gather import Faults
from scheduler.config.job_files import WrittenJob
from scheduler.config.merged import Merged
from scheduler.config.settings import ScheduledJob

_OF_A_SCHEDULE = ("dst", "jitter", "start", "end", "misfire_grace_time", "catch_up")


@dataclass(frozen=True, slots=True)
class Advice:
    """Warns of what one job's keys mean together; `alone` nothing but the files is looked at."""

    merged: Merged
    faults: Faults
    now: datetime
    alone: bool = False

    def give(self, written: WrittenJob, job: ScheduledJob) -> None:
        """Look at one job that has no faults."""
        if job.schedule is None:
            self._without_schedule(written, job.job)
        elif job.enabled:
            self._over(written, job)
        if job.jitter is not None:
            self._jitter(written, job, job.jitter)
        if job.job.retry is not None:
            self._retry(written, job.job.timeout, job.job.retry)
        for key, command in (("condition", job.job.condition), ("gather", job.job.gather)):
            if command is not None and not command.shell and not self.alone:
                self._program(written, key, Path(command.words[0]))

    def _program(self, written: WrittenJob, key: str, program: Path) -> None:
        """Warn of a program that is not there yet; which one a bare name is, the daemon's PATH says."""
        if program.is_absolute() and not program.exists():
            self.faults.warn(*self.merged.place(written, key), f"names {program}, which is not there")

    def _without_schedule(self, written: WrittenJob, job: Job) -> None:
        keys = _OF_A_SCHEDULE if job.after else (*_OF_A_SCHEDULE, "max_runs")
        for key in keys:
            if key in written.row.model_fields_set:
                self.faults.warn(written.document, (*written.path, key), "does nothing without a schedule")

    def _over(self, written: WrittenJob, job: ScheduledJob) -> None:
        """Warn of a schedule that is never due again; only an end, or a moment, can make it so."""
        table, schedule = job.timetable, job.schedule
        if table is None or schedule is None or not (table.end or any(map(_is_moment, table.lines))):
            return
        if schedule.after(self.now) is None:
            key = "end" if table.end is not None and table.end <= self.now else "schedule"
            self.faults.warn(*self.merged.place(written, key), "is over: the job is never due again")

    def _jitter(self, written: WrittenJob, job: ScheduledJob, jitter: timedelta) -> None:
        first = job.schedule.after(self.now) if job.schedule else None
        second = job.schedule.after(first) if job.schedule and first else None
        if first is not None and second is not None and second - first <= jitter:
            between = _words(second - first)
            text = f"is not shorter than the {between} between two instants: runs are delayed by less"
            self.faults.warn(*self.merged.place(written, "jitter"), text)

    def _retry(self, written: WrittenJob, timeout: timedelta, retry: Retry) -> None:
        fitting = sum(1 for wait in _waits(retry) if wait < timeout)
        if fitting < retry.max:
            text = (
                f"has time for {fitting} of {retry.max} further tries: the timeout of {_words(timeout)} is "
                "that of the whole run, with its waits"
            )
            self.faults.warn(*self.merged.place(written, "retry"), text)


def _waits(retry: Retry) -> Iterable[timedelta]:
    """Yield how long all waits before each further try last together, at least."""
    total = timedelta()
    for number in range(retry.max):
        total += retry.delay(number + 1)
        yield total


def _is_moment(line: str) -> bool:
    return line.split(None, 1)[0].lower() == "at"


def _words(length: timedelta) -> str:
    return f"{length.total_seconds():g} s"
