"""`promptd job run`: one job, now, in this process or the daemon's, recorded like any run."""

import sys
from typing import TYPE_CHECKING

import click

from jobs.errors import UsageError
from jobs.events import ChainWaits, Event, RunClaimed, RunRetries
from jobs.run import Reason, RunState
from jobs.text import readable
from scheduler.cli import remote
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.job_next import job_named
from scheduler.cli.params import JOB, TEXT
from scheduler.cli.tables import print_text

if TYPE_CHECKING:
    from scheduler.one_shot import Ended

# ruff: noqa: PLC0415 - the program that runs prompts is loaded when there is one to run


@click.command("run")
@click.argument("name", type=JOB)
@click.option(
    "--var", "pairs", type=TEXT, multiple=True, metavar="K=V", help="A value for the prompt's `vars`."
)
@click.option("--force", is_flag=True, help="Run it although it is held.")
@click.option(
    "--wait/--detach", "waits", default=True, help="Run it here and wait, or hand it to the daemon."
)
@click.option("--dry-run", is_flag=True, help="Print the prompt; ask no model, record nothing.")
@click.option("--gather", "gathers", is_flag=True, help="With --dry-run: run the job's gather command.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as `run show --json` does.")
@pass_context
def run(
    context: Context,
    name: str,
    pairs: tuple[str, ...],
    force: bool,
    waits: bool,
    dry_run: bool,
    gathers: bool,
    as_json: bool,
) -> int:
    """Run the job NAME now and print its answer; exit 1 when it fails, 75 when it is held.

    With --detach the daemon runs it, and the new run's id is printed; exit 69 where there is no daemon.
    --dry-run calls nothing: its condition is not asked, and what `gather` would print is left out.
    """
    if gathers and not dry_run:
        raise UsageError("--gather belongs to --dry-run; a real run always gathers")
    scheduled, values = job_named(context, name), values_of(pairs)
    if dry_run:
        from scheduler.cli.job_dry_run import dry_run as print_prompt

        return print_prompt(context, scheduled, values, gathers=gathers, as_json=as_json)
    if not waits:
        told = remote.ask(context, "run", job=name, values=values, force=force)
        tell_id(context, told["run_id"], as_json=as_json)
        return ExitCode.DONE
    from jobs.run import Trigger
    from scheduler.one_shot import run_now

    ended = run_now(
        context.settings,
        scheduled,
        trigger=Trigger.MANUAL,
        environ=context.environ,
        redactor=context.redactor,
        values=values,
        force=force,
        hear=say_waits,
        carried=context.carried,
    )
    return tell(context, ended, as_json=as_json)


def values_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read `k=v` pairs; raises UsageError for anything else."""
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{pair!r} is not K=V with a name for K, such as --var day=monday")
        values[key] = value
    return values


def tell(context: Context, ended: "Ended", *, as_json: bool) -> int:
    """Print the answer on standard output, and what is worth knowing about it on standard error."""
    run_id, outcome = ended.run_id, ended.outcome
    if as_json:
        from scheduler.cli.run import print_run

        print_run(context, run_id, as_json=True)
    elif outcome.output is not None:
        print_text(outcome.output)
    match outcome.state:
        case RunState.SUCCEEDED if outcome.fallback and outcome.served is not None:
            say(
                f"answered by {outcome.served.provider}/{outcome.served.model}, since the first target "
                f"failed: {outcome.fallback_reason}; see `promptd run show {run_id}`"
            )
        case RunState.SUCCEEDED:
            return ExitCode.DONE
        case RunState.CANCELLED:
            say(f"run {run_id} was cancelled")
            return ExitCode.INTERRUPTED if ended.interrupted else ExitCode.FAILED
        case RunState.SKIPPED if outcome.reason == Reason.CONDITION:
            say(f"run {run_id} was skipped: the job's condition says that there is nothing to do")
        case state:
            say(f"run {run_id} {state}: {outcome.message or outcome.reason}; see `promptd run show {run_id}`")
            return ExitCode.FAILED
    return ExitCode.DONE


def tell_id(context: Context, run_id: int, *, as_json: bool) -> None:
    """Print the id of a run that the daemon does; with `as_json` the run as it stands."""
    if as_json:
        from scheduler.cli.run import print_run

        print_run(context, run_id, as_json=True)
        return
    click.echo(run_id)
    say(f"run {run_id} is the daemon's; see `promptd run show {run_id}`")


def say_waits(event: Event) -> None:
    """Print for what a run waits, which may be minutes, and what is left to the daemon."""
    match event:
        case ChainWaits(seconds=seconds, why=why):
            say(f"waiting, {seconds:.0f} s at most: {why}")
        case RunRetries(run=run, seconds=seconds, why=why):
            say(f"try {run.tries} of run {run.id} failed, the next begins in {seconds:.0f} s: {why}")
        case RunClaimed(run=run):
            say(f"run {run.id} of {run.job} comes after this one; it is queued for the daemon")
        case _:
            return


def say(line: str) -> None:
    """Print one line on standard error."""
    print(readable(f"promptd: {line}"), file=sys.stderr)
