"""`promptd job pause` and `resume`: whether what falls due is run; the schedule goes on either way."""

from collections.abc import Callable, Sequence

import click
from sqlalchemy import Connection

from jobs import clock
from jobs.errors import UsageError
from jobs.store import jobs as job_verbs
from scheduler.app import ensure_database
from scheduler.cli.context import Context
from scheduler.cli.job_next import job_named
from scheduler.cli.params import JOB, TEXT
from scheduler.cli.remote import tell_daemon
from scheduler.cli.tables import View, shown
from scheduler.config.settings import ScheduledJob

_LONGEST_REASON = 500
_NAMES = click.argument("names", metavar="NAME…", nargs=-1, required=True, type=JOB)


@click.command("pause")
@_NAMES
@click.option("--reason", type=TEXT, help="Why, for those who see it paused.")
@shown
def pause(context: Context, names: tuple[str, ...], reason: str | None) -> View:
    """Skip what falls due, until the jobs are resumed; runs that have begun go on."""
    now = clock.utcnow()
    why = reason.strip() or None if reason else None
    if why and len(why) > _LONGEST_REASON:
        raise UsageError(f"the reason is longer than {_LONGEST_REASON} characters; say it in a line")
    return _changed(
        context,
        names,
        lambda connection, name: job_verbs.pause(connection, name, reason=why, now=now),
        paused=True,
    )


@click.command("resume")
@_NAMES
@shown
def resume(context: Context, names: tuple[str, ...]) -> View:
    """Run again what falls due from now on; what was skipped meanwhile stays skipped."""
    now = clock.utcnow()
    return _changed(
        context, names, lambda connection, name: job_verbs.resume(connection, name, now=now), paused=False
    )


def _changed(
    context: Context, names: Sequence[str], change: Callable[[Connection, str], bool], *, paused: bool
) -> View:
    """Change all jobs in one transaction, and have a daemon look at them."""
    jobs = [job_named(context, name) for name in dict.fromkeys(names)]
    ensure_database(context.settings)
    with context.writing() as connection:
        now = clock.utcnow()
        for job in jobs:
            job_verbs.see_one(connection, job.name, _timetable_of(job), now=now)
        found = {job.name: change(connection, job.name) for job in jobs}
    tell_daemon(context, "wake", names=list(found))
    data = [{"name": name, "paused": paused, "changed": changed} for name, changed in found.items()]
    word = "paused" if paused else "resumed"
    already = "is paused already" if paused else "is not paused"
    lines = [f"{name} is {word}" if changed else f"{name} {already}" for name, changed in found.items()]
    return View(data, ["\n".join(lines)])


def _timetable_of(job: ScheduledJob) -> str | None:
    """Return what the store keeps of a job's timetable; None where nothing falls due."""
    return job.timetable.key() if job.enabled and job.timetable is not None else None
