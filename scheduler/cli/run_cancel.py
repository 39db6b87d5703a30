"""`promptd run cancel` and `retry`: ending a run that has not ended, and doing again one that has."""

import time
from collections.abc import Mapping
from typing import Any

import click

from jobs import clock
from jobs.errors import Busy, UsageError
from jobs.run import OPEN_STATES, Reason, RunState, Trigger
from jobs.store import ledger, runs
from scheduler.cli import remote
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.job_next import job_named
from scheduler.cli.job_run import say_waits, tell, tell_id
from scheduler.cli.params import RUN
from scheduler.cli.tables import View, shown

# ruff: noqa: PLC0415 - the program that runs prompts is loaded when there is one to run

ENDS_WITHIN = 30.0
_LOOK_EVERY = 0.1


@click.command("cancel")
@click.argument("run_id", metavar="ID", type=RUN)
@shown
def cancel(context: Context, run_id: int) -> View:
    """End a run: one that waits at once, one that is at work as soon as its process hears of it.

    Exit code 1: it had ended already. 75: its process has not ended it within half a minute.
    """
    row = _row(context, run_id)
    if row["state"] in OPEN_STATES:
        _ask_to_end(context, row)
        row = _ended(context, run_id)
        cancelled = row["state"] == RunState.CANCELLED
        how = "is cancelled" if cancelled else f"had ended before it could be cancelled: {row['state']}"
    else:
        cancelled, how = False, f"had ended already: {row['state']}"
    data = {"id": run_id, "job": row["job"], "state": row["state"], "cancelled": cancelled}
    code = ExitCode.DONE if cancelled else ExitCode.FAILED
    return View(data, [f"run {run_id} of {row['job']} {how}"], code=code)


def _ask_to_end(context: Context, row: Mapping[str, Any]) -> None:
    told = remote.tell_daemon(context, "cancel", run_id=row["id"])
    if told is not None and told["cancelled"]:
        return
    with context.writing() as connection:
        if not runs.cancel_queued(connection, row["id"], Reason.OPERATOR, now=clock.utcnow()):
            runs.request_cancel(connection, row["id"], Reason.OPERATOR)


def _ended(context: Context, run_id: int) -> Mapping[str, Any]:
    """Wait until a run has ended and return its row; raises Busy."""
    give_up = clock.monotonic() + ENDS_WITHIN
    while (row := _row(context, run_id))["state"] in OPEN_STATES:
        if clock.monotonic() > give_up:
            raise Busy(
                f"run {run_id} has been asked to end and has not within {ENDS_WITHIN:g} s; "
                f"see `promptd run show {run_id}`"
            )
        time.sleep(_LOOK_EVERY)
    return row


@click.command("retry")
@click.argument("run_id", metavar="ID", type=RUN)
@click.option(
    "--wait/--detach", "waits", default=True, help="Run it here and wait, or hand it to the daemon."
)
@click.option("--force", is_flag=True, help="Run it although its job is held.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as `run show --json` does.")
@pass_context
def retry(context: Context, run_id: int, waits: bool, force: bool, as_json: bool) -> int:
    """Do again what the run ID was to do, as a new run, and print its answer.

    The new run is of the job as it is defined now. Exit code 1 when it fails, 75 when its job is held. With
    --detach the daemon runs it, and the new run's id is printed; exit 69 where there is no daemon.
    """
    row = _row(context, run_id)
    if row["state"] in OPEN_STATES:
        raise UsageError(f"run {run_id} has not ended: {row['state']}; see `promptd run cancel {run_id}`")
    if row["trigger"] == Trigger.ASK:
        raise UsageError(
            f"run {run_id} was a prompt of its own, not a job's; ask it again with `promptd ask`"
        )
    job = job_named(context, row["job"])
    if not waits:
        told = remote.ask(context, "run", job=job.name, values={}, retry_of=run_id, force=force)
        tell_id(context, told["run_id"], as_json=as_json)
        return ExitCode.DONE
    from scheduler.one_shot import run_now

    ended = run_now(
        context.settings,
        job,
        trigger=Trigger.RETRY,
        environ=context.environ,
        redactor=context.redactor,
        retry_of=run_id,
        force=force,
        hear=say_waits,
        carried=context.carried,
    )
    return tell(context, ended, as_json=as_json)


def _row(context: Context, run_id: int) -> Mapping[str, Any]:
    with context.reading() as connection:
        row = ledger.run(connection, run_id)
    if row is None:
        raise UsageError(f"there is no run {run_id}; see `promptd run list`")
    return row
