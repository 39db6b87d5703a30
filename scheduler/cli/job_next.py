"""`promptd job next`: when jobs are due, in UTC and in their zones, and where a clock change shapes that."""

import heapq
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click
from cronsim import CronSim

from jobs import clock
from jobs.errors import UsageError
from jobs.store import jobs as job_verbs
from jobs.store.jobs import JobState
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.params import JOB
from scheduler.cli.tables import Table, View, shown
from scheduler.cli.words import instant
from scheduler.config.settings import ScheduledJob
from scheduler.triggers import CronSchedule, Schedule

_DEFAULT = 10
_MOST = 10_000
_SECOND = timedelta(seconds=1)
_TITLES = ("JOB", "SCHEDULED FOR", "LOCAL", "NOTE")


@click.command("next")
@click.argument("name", required=False, type=JOB)
@click.option(
    "-n", "count", type=click.IntRange(1, _MOST), default=_DEFAULT, show_default=True, help="How many times."
)
@shown
def next_(context: Context, name: str | None, count: int) -> View:
    """Print the next due times of one job, or of all jobs together."""
    now = clock.utcnow()
    jobs = [job_named(context, name)] if name else list(context.settings.jobs.values())
    with context.reading() as connection:
        states = job_verbs.states(connection)
    rows = next_rows(jobs, states, count=count, now=now)
    lines = [(row["job"], row["scheduled_for"], row["local"], row["note"]) for row in rows]
    return View(rows, [Table(_TITLES, lines, none="nothing is due")], notes=_notes(jobs, name))


def next_rows(
    jobs: Iterable[ScheduledJob], states: dict[str, JobState], *, count: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the next `count` instants of all jobs together, as `job next --json` prints them."""
    due = heapq.merge(
        *(_dated(job, states.get(job.name), now) for job in jobs if job.enabled),
        key=lambda each: (each[0], each[1].name),
    )
    return [_row(when, job, states.get(job.name)) for when, job in islice(due, count)]


def job_named(context: Context, name: str) -> ScheduledJob:
    """Return a job; raises UsageError that names near ones."""
    jobs = context.settings.jobs
    if name in jobs:
        return jobs[name]
    near = get_close_matches(name, jobs, n=3)
    meant = f"did you mean {' or '.join(near)}?" if near else "see `promptd job list`"
    raise UsageError(f"no job is called {name!r}; {meant}")


def anchored(job: ScheduledJob, state: JobState | None, *, now: datetime) -> Schedule | None:
    """Return a job's schedule counted from its first sight; one not seen yet is taken to be seen now."""
    return job.schedule.anchored(state.first_seen_at if state else now) if job.schedule else None


def following(schedule: Schedule | None, moment: datetime) -> Iterator[datetime]:
    """Yield the instants of a schedule after a moment."""
    upcoming = schedule.after(moment) if schedule else None
    while schedule is not None and upcoming is not None:
        yield upcoming
        upcoming = schedule.after(upcoming)


def _dated(
    job: ScheduledJob, state: JobState | None, now: datetime
) -> Iterator[tuple[datetime, ScheduledJob]]:
    return ((when, job) for when in following(anchored(job, state, now=now), now))


def _row(when: datetime, job: ScheduledJob, state: JobState | None) -> dict[str, Any]:
    paused = "paused: will be skipped" if state and state.paused_at else None
    shaped = clock_change(job.schedule, when) if isinstance(job.schedule, CronSchedule) else None
    return {
        "job": job.name,
        "scheduled_for": instant(when),
        "local": words.local(when, job.timezone),
        "note": "; ".join(note for note in (paused, shaped) if note) or None,
    }


def clock_change(schedule: CronSchedule, when: datetime) -> str | None:
    """Say how a change of the clock shaped an instant: None where it did not."""
    if _is_ambiguous(when, schedule.zone):
        first = when.astimezone(schedule.zone).fold == 0
        return "clock set back: the first of two" if first else "clock set back: the second of two"
    before, after = (moment.astimezone(schedule.zone).utcoffset() for moment in (when - _SECOND, when))
    if before is None or after is None or after <= before or _is_written(schedule, when):
        return None
    return "clock set forward: the hour does not exist, runs right after it"


def _is_ambiguous(when: datetime, zone: ZoneInfo) -> bool:
    local = when.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _is_written(schedule: CronSchedule, when: datetime) -> bool:
    """Say whether the line itself names this local time, read as if no clock ever changed."""
    plain = when.astimezone(schedule.zone).replace(tzinfo=UTC)
    return next(CronSim(schedule.line, plain - _SECOND), None) == plain


def _notes(jobs: list[ScheduledJob], name: str | None) -> list[str]:
    if name is None:
        return []
    return [f"the job {job.name} is disabled: it is never due" for job in jobs if not job.enabled]
