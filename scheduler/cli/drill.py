"""`promptd drill`: a real run in which the named providers fail, to see who takes over. Nobody is marked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobs.attempt import AttemptOutcome
from jobs.errors import ErrorClass, UsageError
from jobs.store import ledger
from jobs.store.attempts import DRILL_RULE
from scheduler.cli import words
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.job_next import job_named
from scheduler.cli.job_run import say, say_waits
from scheduler.cli.params import DRILLED, JOB
from scheduler.cli.run import print_run
from scheduler.cli.tables import Table, show

if TYPE_CHECKING:
    from jobs.definition import Job
    from jobs.names import ProviderName
    from scheduler.one_shot import Ended

# ruff: noqa: PLC0415 - the program that runs prompts is loaded when there is one to run

_TITLES = ("#", "PURPOSE", "TARGET", "CREDENTIAL", "WHAT HAPPENED", "THEN")


@click.command("drill")
@click.argument("name", metavar="JOB", type=JOB)
@click.option(
    "--fail", "failures", type=DRILLED, multiple=True, required=True, metavar="PROVIDER=CLASS",
    help="Let this provider fail with this class, before a request leaves; repeats.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the run as `run show --json` does.")
@pass_context
def drill(context: Context, name: str, failures: tuple[tuple[str, ErrorClass], ...], as_json: bool) -> int:
    """Run JOB now while the named providers fail, and show who takes over; exit 1 when nobody answers.

    Every other target is really asked. The run is recorded; it delivers nothing, closes nothing, and does not
    count as one of the job's failures.
    """
    from jobs.providers.call import Drill
    from jobs.run import Trigger
    from scheduler.one_shot import run_now

    scheduled = job_named(context, name)
    rehearsed = Drill(chosen(context, scheduled.job, failures))
    ended = run_now(
        context.settings,
        scheduled,
        trigger=Trigger.DRILL,
        environ=context.environ,
        redactor=context.redactor,
        drill=rehearsed,
        hear=say_waits,
    )
    if as_json:
        print_run(context, ended.run_id, as_json=True)
    else:
        with context.reading() as connection:
            rows = ledger.attempts_of(connection, ended.run_id)
        show([Table(_TITLES, list(lines(rows)), none="no target was reached")], color=context.color)
    return told(ended)


def chosen(
    context: Context, job: "Job", failures: Sequence[tuple[str, ErrorClass]]
) -> "Mapping[ProviderName, ErrorClass]":
    """Return who is to fail, by canonical name; raises UsageError for a provider that the job never asks."""
    helpers = (helper.chain for helper in (job.compression, job.title) if helper is not None)
    asked = dict.fromkeys(target.provider for chain in (job.chain, *helpers) for target in chain)
    found: dict[ProviderName, ErrorClass] = {}
    for spelled, error_class in failures:
        name = context.provider_name(spelled)
        if name not in asked:
            raise UsageError(f"{job.name} never asks {name}; it asks {', '.join(asked)}")
        if found.setdefault(name, error_class) is not error_class:
            raise UsageError(f"{name} cannot fail with both {found[name]} and {error_class}; keep one")
    return found


def lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Yield the attempts of a drill as people read them."""
    for row in rows:
        target = f"{row['provider']}/{row['model']}"
        yield row["ordinal"], row["purpose"], target, row["credential"], _what_happened(row), row["recovery"]


def _what_happened(row: Mapping[str, Any]) -> str:
    if row["rule"] == DRILL_RULE:
        return f"failed by the drill: {row['error_class']}"
    cause = words.cause(row["error_class"], row["code"])
    match row["outcome"]:
        case AttemptOutcome.SUCCEEDED:
            return f"answered in {words.length(row['latency'])}"
        case AttemptOutcome.PASSED_OVER:
            return f"passed over: {cause}: {row['message']}"
        case AttemptOutcome.FAILED:
            return f"really failed: {cause}: {row['message'] or row['http_status']}"
        case outcome:
            return str(outcome)


def told(ended: "Ended") -> int:
    """Say who answered, and return the exit code."""
    from jobs.run import RunState

    outcome, see = ended.outcome, f"see `promptd run show {ended.run_id}`"
    match outcome.state:
        case RunState.SUCCEEDED if outcome.served is not None:
            served = outcome.served
            by = f"{served.provider}/{served.model}, credential {served.credential}"
            say(f"answered by {by}; nothing was marked or delivered; {see}")
            return ExitCode.DONE
        case RunState.CANCELLED:
            say(f"run {ended.run_id} was cancelled")
            return ExitCode.INTERRUPTED if ended.interrupted else ExitCode.FAILED
        case state:
            say(f"nobody answered: {state}: {outcome.message or outcome.reason}; nothing was marked; {see}")
            return ExitCode.FAILED
