"""`promptd delivery list`, `retry` and `test`: what left the house, what did not, and whether it would."""

from collections.abc import Mapping
from typing import Any, assert_never

import click

from jobs import clock
from jobs.delivery.target import AppriseTarget, CommandTarget, DeliveryTarget, FileTarget, WebhookTarget
from jobs.delivery_state import DeliveryState
from jobs.errors import UsageError
from jobs.store import deliveries, ledger
from jobs.store.ledger import DeliveryFilter
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.edge import ExitCode
from scheduler.cli.params import JOB, TARGET
from scheduler.cli.remote import tell_daemon
from scheduler.cli.run_shapes import delivery_shape
from scheduler.cli.tables import Table, View, shown

# ruff: noqa: PLC0415 - the program that sends is loaded when there is something to send

_MOST = 10_000
_DEFAULT = 50
_TITLES = ("ID", "WHAT", "JOB", "TARGET", "STATE", "ATTEMPTS", "WRITTEN", "NEXT ATTEMPT", "LAST ERROR")
_ID = click.IntRange(1, 2**63 - 1)


@click.command("list")
@click.option(
    "--state", type=click.Choice([str(state) for state in DeliveryState]), help="Only in this state."
)
@click.option("--job", type=JOB, help="Only of this job's runs, and of alerts about it.")
@click.option("--target", type=TARGET, help="Only to this target.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=_DEFAULT, show_default=True, help="At most so many."
)
@shown
def list_(context: Context, state: str | None, job: str | None, target: str | None, limit: int) -> View:
    """List deliveries of results and of alerts, newest first."""
    wanted = DeliveryFilter(DeliveryState(state) if state else None, job, target, limit)
    with context.reading() as connection:
        rows = ledger.list_deliveries(connection, wanted)
    return View(
        [listed_shape(row) for row in rows],
        [Table(_TITLES, [_line(row) for row in rows], none="no deliveries")],
    )


@click.command("retry")
@click.argument("ids", metavar="[ID…]", nargs=-1, type=_ID)
@click.option("--failed", is_flag=True, help="All that have failed for good, instead of some by their ids.")
@click.option("--target", type=TARGET, help="With --failed: only those to this target.")
@shown
def retry(context: Context, ids: tuple[int, ...], failed: bool, target: str | None) -> View:
    """Have deliveries sent again that have failed for good, with all their tries and the same key.

    One that waits for its next try is sent now. A running daemon sends them at once, else the next one does.
    """
    if failed == bool(ids):
        raise UsageError("name deliveries by their ids, or give --failed; see `promptd delivery list`")
    if target is not None and not failed:
        raise UsageError("--target belongs to --failed")
    with context.writing() as connection:
        meant = deliveries.failed(connection, target=target) if failed else list(dict.fromkeys(ids))
        known = {row["id"]: row for row in ledger.deliveries_by_id(connection, meant)}
        for each in meant:
            _retriable(each, known.get(each))
        deliveries.ask_again(connection, meant, now=clock.utcnow())
        rows = ledger.deliveries_by_id(connection, meant)
    if rows:
        tell_daemon(context, "wake", names=[])
    return View(
        [listed_shape(row) for row in rows],
        [Table(_TITLES, [_line(row) for row in rows], none="no delivery has failed for good")],
    )


@click.command("test")
@click.argument("name", metavar="TARGET", type=TARGET)
@shown
def test(context: Context, name: str) -> View:
    """Send a test message to TARGET now, as a result is sent; exit 1 when it is not delivered.

    Nothing of it is written down, and it is not tried again.
    """
    from scheduler.delivery_trial import try_now

    target = context.settings.delivery.get(name)
    if target is None:
        known = ", ".join(context.settings.delivery) or "none"
        raise UsageError(f"there is no delivery target {name!r}; known: {known}")
    tried = try_now(context.settings, target, environ=context.environ, redactor=context.redactor)
    refused, took = tried.refused, words.length(tried.seconds)
    data = {
        "target": name,
        "kind": _kind(target),
        "delivered": refused is None,
        "error": str(refused) if refused else None,
        "permanent": refused.permanent if refused else None,
        "seconds": round(tried.seconds, 3),
    }
    if refused is None:
        return View(data, [f"delivered to {name} in {took}"])
    return View(data, [f"not delivered to {name}, after {took}: {refused}"], code=ExitCode.FAILED)


def listed_shape(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a delivery as `delivery list --json` prints it."""
    shape = delivery_shape(row)
    return {"id": shape.pop("id"), "job": row["job"], **shape}


def _retriable(delivery_id: int, row: Mapping[str, Any] | None) -> None:
    """Raise UsageError for a delivery that is not there, or has arrived."""
    if row is None:
        raise UsageError(f"there is no delivery {delivery_id}; see `promptd delivery list`")
    if row["state"] == DeliveryState.DELIVERED:
        raise UsageError(f"delivery {delivery_id} has arrived; do the run again with `promptd run retry`")


def _line(row: Mapping[str, Any]) -> tuple[object, ...]:
    state, next_attempt = words.delivery(row)
    what = f"run {row['run_id']}" if row["run_id"] else f"alert {row['alert_id']} {row['notice']}"
    return (
        row["id"],
        what,
        row["job"],
        row["target"],
        state,
        row["attempts"],
        words.moment(row["created_at"]),
        next_attempt,
        row["last_error"],
    )


def _kind(target: DeliveryTarget) -> str:
    match target:
        case AppriseTarget():
            return "apprise"
        case WebhookTarget():
            return "webhook"
        case FileTarget():
            return "file"
        case CommandTarget():
            return "command"
        case _:
            assert_never(target)
