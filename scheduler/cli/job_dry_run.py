"""`promptd job run --dry-run`: the prompt that a run would send now, and nothing is asked or recorded."""

import asyncio
from collections.abc import Mapping
from typing import Any

import click

from jobs import clock
from jobs.commands import Commands, without_secrets
from jobs.definition import Job
from jobs.material import Material
from jobs.one_try import rendered, template_names
from jobs.prompt import asks_for
from jobs.prompt_file import with_texts
from jobs.run import ClaimedRun, Trigger
from jobs.store.outputs import newest_outputs
from scheduler.cli.context import Context
from scheduler.cli.edge import ExitCode
from scheduler.cli.tables import print_text, to_json
from scheduler.cli.words import instant
from scheduler.config.settings import ScheduledJob

_LEFT_OUT = "[here stands what the job's gather command prints; see it with --gather]"


def dry_run(
    context: Context, scheduled: ScheduledJob, values: Mapping[str, Any], *, gathers: bool, as_json: bool
) -> int:
    """Print what a run by hand would send; raises TemplateError, or CommandFailed of the gather command."""
    now, job = clock.utcnow(), with_texts(scheduled.job)
    run = ClaimedRun(0, job.name, now, Trigger.MANUAL, vars=values)
    material = _material(context, job, gathers=gathers)
    names = {**template_names(run, job, now=now), **material.names}
    request = rendered(job, names, zone=scheduled.timezone)
    if as_json:
        shape = {
            "job": job.name,
            "scheduled_for": instant(now),
            "system": request.system,
            "prompt": request.prompt,
        }
        click.echo(to_json(shape))
    else:
        heads = ("system:\n", "\n\nprompt:\n") if request.system is not None else ("", "")
        print_text(f"{heads[0]}{request.system or ''}{heads[1]}{request.prompt}")
    return ExitCode.DONE


def _material(context: Context, job: Job, *, gathers: bool) -> Material:
    """Return the texts that the templates ask for; no database is made for them."""
    gathered = ""
    if job.gather is not None and asks_for("gathered", job.prompt, job.system):
        gathered = asyncio.run(_commands(context).output_of(job.gather)) if gathers else _LEFT_OUT
    with context.reading() as connection:
        outputs = newest_outputs(connection, (job.name, *job.context_from))
    return Material(gathered, outputs[job.name], {name: outputs[name] for name in job.context_from})


def _commands(context: Context) -> Commands:
    settings = context.settings
    environ = without_secrets(context.environ, settings.registry, settings.withheld())
    return Commands(environ, context.redactor)
