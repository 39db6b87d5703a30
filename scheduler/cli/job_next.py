"""`promptd job next`: when jobs are due, in UTC and in their zones, and what shapes that."""

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from jobs import clock
from jobs.errors import UsageError
from jobs.store import jobs as job_verbs
from jobs.store.jobs import JobState
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.job_catch_up import catch_up_view
from scheduler.cli.params import JOB
from scheduler.cli.tables import Table, View, shown
from scheduler.cli.words import instant
from scheduler.config.settings import ScheduledJob
from scheduler.cron_schedule import CronSchedule
from scheduler.periods import delay_of
from scheduler.timetable import JoinedSchedule
from scheduler.triggers import AtSchedule, Schedule

_DEFAULT = 10
_MOST = 10_000
_TITLES = ("JOB", "SCHEDULED FOR", "LOCAL", "NOTE")


@click.command("next")
@click.argument("name", required=False, type=JOB)
@click.option(
    "-n", "count", type=click.IntRange(1, _MOST), default=_DEFAULT, show_default=True, help="How many times."
)
@click.option("--if-started-now", is_flag=True, help="Print what a start would catch up now; start nothing.")
@shown
def next_(context: Context, name: str | None, count: int, if_started_now: bool) -> View:
    """Print the next due times of one job, or of all jobs together."""
    now = clock.utcnow()
    jobs = [job_named(context, name)] if name else list(context.settings.jobs.values())
    with context.reading() as connection:
        states = job_verbs.states(connection)
    if if_started_now:
        return catch_up_view(jobs, states, count=count, now=now)
    rows = next_rows(jobs, states, count=count, now=now)
    lines = [(row["job"], row["scheduled_for"], row["local"], row["note"]) for row in rows]
    return View(rows, [Table(_TITLES, lines, none="nothing is due")], notes=_notes(jobs, states, name))


def next_rows(
    jobs: Iterable[ScheduledJob], states: dict[str, JobState], *, count: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the next `count` instants of all jobs together, as `job next --json` prints them."""
    due = heapq.merge(
        *(_dated(job, states.get(job.name), now) for job in jobs if job.enabled),
        key=lambda each: (each[0], each[1].name),
    )
    return [_row(when, job, schedule, states.get(job.name)) for when, job, schedule in islice(due, count)]


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


def undecided_since(state: JobState | None, *, now: datetime) -> datetime:
    """Return `now`, or up to when a job is decided already where the clock was set back behind that."""
    return max(now, state.decided_until) if state else now


Dated = tuple[datetime, ScheduledJob, Schedule]


def has_ended(job: ScheduledJob, state: JobState | None) -> bool:
    """Say whether a job's schedule has started all the runs that it may."""
    return state is not None and job.runs_left(state.runs_started) == 0


def _dated(job: ScheduledJob, state: JobState | None, now: datetime) -> Iterator[Dated]:
    schedule, left = anchored(job, state, now=now), job.runs_left(state.runs_started if state else 0)
    instants = islice(following(schedule, undecided_since(state, now=now)), left)
    return ((when, job, schedule) for when in instants) if schedule else iter(())


def _row(when: datetime, job: ScheduledJob, schedule: Schedule, state: JobState | None) -> dict[str, Any]:
    paused = "paused: will be skipped" if state and state.paused_at else None
    notes = (paused, clock_change(schedule, when), _delayed(when, job, schedule))
    return {
        "job": job.name,
        "scheduled_for": instant(when),
        "local": words.local(when, job.timezone),
        "note": "; ".join(note for note in notes if note) or None,
    }


def _delayed(when: datetime, job: ScheduledJob, schedule: Schedule) -> str | None:
    if not job.jitter:
        return None
    delay = delay_of(schedule, when, job=job.name, jitter=job.jitter)
    return f"jitter: starts {words.length(delay)} later"


def clock_change(schedule: Schedule, when: datetime) -> str | None:
    """Say how a change of the clock shaped an instant: None where it did not, and for elapsed times."""
    lines = schedule.lines if isinstance(schedule, JoinedSchedule) else (schedule,)
    said = [
        _shaped(line, line.zone, when)
        for line in lines
        if isinstance(line, CronSchedule | AtSchedule) and line.zone and line.latest(when) == when
    ]
    return "; ".join(dict.fromkeys(note for note in said if note)) or None


def _shaped(line: CronSchedule | AtSchedule, zone: ZoneInfo, when: datetime) -> str | None:
    if _is_ambiguous(when, zone):
        first = when.astimezone(zone).fold == 0
        return "clock set back: the first of two" if first else "clock set back: the second of two"
    if line.names(when):
        return None
    return "clock set forward: the hour does not exist, runs right after it"


def _is_ambiguous(when: datetime, zone: ZoneInfo) -> bool:
    """Say whether this local time comes twice: PEP 495 gives it two offsets, the earlier one the greater."""
    local = when.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _notes(jobs: list[ScheduledJob], states: dict[str, JobState], name: str | None) -> list[str]:
    if name is None:
        return []
    said = ((job.name, _why_never(job, states.get(job.name))) for job in jobs)
    return [f"the job {name} {why}: it is never due" for name, why in said if why]


def _why_never(job: ScheduledJob, state: JobState | None) -> str | None:
    if not job.enabled:
        return "is disabled"
    return f"has ended, with {job.max_runs} runs started" if has_ended(job, state) else None
