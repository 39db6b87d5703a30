"""`promptd job run`: one job, now, in this process, recorded like any run."""

import sys

import click

from jobs.errors import UsageError
from jobs.events import ChainWaits, Event
from jobs.run import Outcome, RunState
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.params import JOB, TEXT

# ruff: noqa: PLC0415 - the program that runs prompts is loaded when there is one to run


@click.command("run")
@click.argument("name", type=JOB)
@click.option(
    "--var", "pairs", type=TEXT, multiple=True, metavar="K=V", help="A value for the prompt's `vars`."
)
@click.option("--force", is_flag=True, help="Run it although it is held.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as `run show --json` does.")
@pass_context
def run(context: Context, name: str, pairs: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Run the job NAME now and print its answer; exit 1 when it fails, 75 when it is held."""
    from jobs.run import Trigger
    from scheduler.one_shot import run_now

    settings = context.settings
    scheduled = settings.jobs.get(name)
    if scheduled is None:
        raise UsageError(f"no job is called {name!r}; see `promptd job list`")
    ended = run_now(
        settings,
        scheduled.job,
        trigger=Trigger.MANUAL,
        zone=scheduled.timezone,
        environ=context.environ,
        redactor=context.redactor,
        values=values_of(pairs),
        force=force,
        hear=say_waits,
    )
    return tell(context, ended.run_id, ended.outcome, as_json=as_json)


def values_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read `k=v` pairs; raises UsageError for anything else."""
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{pair!r} is not K=V with a name for K, such as --var day=monday")
        values[key] = value
    return values


def tell(context: Context, run_id: int, outcome: Outcome, *, as_json: bool) -> int:
    """Print the answer on standard output, and what is worth knowing about it on standard error."""
    if as_json:
        from scheduler.cli.run import print_run

        print_run(context, run_id, as_json=True)
    elif outcome.output is not None:
        click.echo(outcome.output)
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
            return ExitCode.INTERRUPTED
        case state:
            say(f"run {run_id} {state}: {outcome.message or outcome.reason}; see `promptd run show {run_id}`")
            return ExitCode.FAILED
    return ExitCode.DONE


def say_waits(event: Event) -> None:
    """Print for what a run waits: it may be minutes."""
    match event:
        case ChainWaits(seconds=seconds, why=why):
            say(f"waiting, {seconds:.0f} s at most: {why}")
        case _:
            return


def say(line: str) -> None:
    """Print one line on standard error."""
    print(f"promptd: {line}", file=sys.stderr)
