"""`promptd job next --if-started-now`: what a daemon that starts now would make of what it has missed."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from jobs.run import RunState
from jobs.store.jobs import JobState, StoredPeriod, same_timetable
from scheduler.cli import words
from scheduler.cli.tables import Table, View
from scheduler.cli.words import instant, moment
from scheduler.config.settings import ScheduledJob
from scheduler.periods import Period
from scheduler.planner import Decision, Policy, plan
from scheduler.timetable import Timetable

_TITLES = ("JOB", "WOULD BE", "WHY", "FIRST", "LAST", "INSTANTS", "LOCAL")
_NONE = "nothing would be caught up"


def catch_up_view(
    jobs: Iterable[ScheduledJob], states: Mapping[str, JobState], *, count: int, now: datetime
) -> View:
    """Return the planner's decisions from each job's cursor, oldest first, `count` of them at most."""
    due = sorted(
        ((decision, job) for job in jobs for decision in missed(job, states.get(job.name), now=now)),
        key=lambda each: (each[0].instant, each[1].name),
    )
    rows = [_row(decision, job) for decision, job in due[:count]]
    lines = [_line(decision, job) for decision, job in due[:count]]
    notes = [f"{len(due) - count} more: see -n"] if len(due) > count else []
    return View(rows, [Table(_TITLES, lines, none=_NONE)], notes=notes)


def missed(job: ScheduledJob, state: JobState | None, *, now: datetime) -> tuple[Decision, ...]:
    """Return what a start would decide for a job, apart from its other runs and its tokens.

    Nothing where the job is new, or its files say another timetable than the one that was in force.
    """
    periods = state.periods if state is not None else ()
    key = job.timetable.key() if job.enabled and job.timetable is not None else None
    if state is None or not periods or key is None or not same_timetable(periods[-1].timetable, key):
        return ()
    most = job.timetable.max_runs if job.timetable is not None else None
    policy = Policy(
        misfire_grace_time=job.misfire_grace_time,
        catch_up=job.catch_up,
        jitter=job.jitter,
        runs_left=max(0, most - state.runs_started) if most is not None else None,
        held=state.held_until is not None and state.held_until > now,
    )
    return plan(
        [_period(each, state.first_seen_at, now) for each in periods],
        job=job.name,
        cursor=state.decided_until,
        now=now,
        watched_since=now,
        policy=policy,
    ).decisions


def _period(stored: StoredPeriod, anchor: datetime, now: datetime) -> Period:
    said = Timetable.from_key(stored.timetable) if stored.timetable is not None else None
    schedule = said.schedule(now=now, anchor=anchor) if said is not None else None
    return Period(stored.since, stored.until, schedule, stored.paused)


def _row(decision: Decision, job: ScheduledJob) -> dict[str, Any]:
    return {
        "job": job.name,
        "state": decision.state,
        "reason": decision.reason,
        "trigger": decision.trigger,
        "first": instant(decision.first or decision.instant),
        "last": instant(decision.instant),
        "count": decision.count,
        "local": words.local(decision.instant, job.timezone),
    }


def _line(decision: Decision, job: ScheduledJob) -> tuple[object, ...]:
    return (
        job.name,
        "started" if decision.state is RunState.QUEUED else decision.state,
        decision.reason,
        moment(decision.first or decision.instant),
        moment(decision.instant),
        decision.count,
        words.local(decision.instant, job.timezone),
    )
