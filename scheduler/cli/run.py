"""`promptd run list`, `show` and `output`: what was asked, who answered, and what became of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from jobs import clock
from jobs.errors import UsageError
from jobs.run import RunState
from jobs.store import ledger
from jobs.store.ledger import RunFilter
from scheduler.cli import words
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.params import JOB, PROVIDER, RUN
from scheduler.cli.run_shapes import run_shape, whole_run_shape
from scheduler.cli.tables import Block, Facts, Table, View, print_text, put, shown
from scheduler.cli.words import Since

_MOST = 10_000
_DEFAULT = 50


@click.command("list")
@click.option("--job", type=JOB, help="Only runs of this job.")
@click.option("--state", type=click.Choice([str(state) for state in RunState]), help="Only in this state.")
@click.option("--since", type=Since(), help="Only due since then: 2h, 7d, or an ISO time (UTC).")
@click.option("--provider", type=PROVIDER, help="Only asked of or served by it, in any spelling.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=_DEFAULT, show_default=True, help="At most so many."
)
@shown
def list_(
    context: Context,
    job: str | None,
    state: str | None,
    since: datetime | timedelta | None,
    provider: str | None,
    limit: int,
) -> View:
    """List runs, newest first."""
    wanted = RunFilter(
        job=job,
        state=RunState(state) if state else None,
        since=clock.utcnow() - since if isinstance(since, timedelta) else since,
        provider=context.provider_name(provider) if provider else None,
        limit=limit,
    )
    with context.reading() as connection:
        rows = ledger.list_runs(connection, wanted)
        deliveries = ledger.deliveries_of_each(connection, [row["id"] for row in rows])
    titles = ("ID", "JOB", "SCHEDULED FOR", "TRIGGER", "STATE", "SERVED BY", "WHY", "TOOK")
    return View(
        [run_shape(row, deliveries=deliveries.get(row["id"], [])) for row in rows],
        [Table(titles, [_line(row) for row in rows], none="no runs")],
    )


@click.command("show")
@click.argument("run_id", metavar="ID", type=RUN)
@shown
def show(context: Context, run_id: int) -> View:
    """Show one run with every attempt and delivery."""
    return run_view(context, run_id)


def run_view(context: Context, run_id: int) -> View:
    """Return what there is to say about a run; raises UsageError when there is none of this id."""
    with context.reading() as connection:
        row = _found(ledger.run(connection, run_id), run_id)
        attempts = ledger.attempts_of(connection, run_id)
        deliveries = ledger.deliveries_of(connection, run_id)
    return View(
        whole_run_shape(row, attempts=attempts, deliveries=deliveries),
        run_blocks(row, attempts=attempts, deliveries=deliveries),
    )


def print_run(context: Context, run_id: int, *, as_json: bool) -> None:
    """Print a run as `run show` does, for the commands that have just made it."""
    put(run_view(context, run_id), as_json=as_json, color=context.color)


@click.command("output")
@click.argument("run_id", metavar="ID", type=RUN)
@pass_context
def output(context: Context, run_id: int) -> int:
    """Print a run's output and nothing else."""
    with context.reading() as connection:
        row = _found(ledger.run(connection, run_id), run_id)
    if row["output"] is None:
        advice = f"see `promptd run show {run_id}`"
        click.echo(f"promptd: run {run_id} ({row['state']}) has no output; {advice}", err=True)
        return ExitCode.FAILED
    print_text(row["output"])
    return ExitCode.DONE


def run_blocks(
    row: Mapping[str, Any], *, attempts: Sequence[Mapping[str, Any]], deliveries: Sequence[Mapping[str, Any]]
) -> list[Block]:
    """Return a run as people read it: facts, attempts, deliveries, output."""
    blocks: list[Block] = [Facts(_facts(row))]
    if attempts:
        blocks.append(Table(_ATTEMPT_TITLES, [_attempt_line(each) for each in attempts]))
    if deliveries:
        titles = ("DELIVERY", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "LAST ERROR")
        blocks.append(Table(titles, [_delivery_line(each) for each in deliveries]))
    if row["output"]:
        blocks.append(row["output"])
    return blocks


_ATTEMPT_TITLES = (
    "#",
    "ID",
    "PURPOSE",
    "TARGET",
    "CREDENTIAL",
    "OUTCOME",
    "CLASS",
    "CODE",
    "STATUS",
    "THEN",
    "LATENCY",
    "WAITED",
    "MESSAGE",
)


def _found(row: Mapping[str, Any] | None, run_id: int) -> Mapping[str, Any]:
    if row is None:
        raise UsageError(f"there is no run {run_id}; see `promptd run list`")
    return row


def _line(row: Mapping[str, Any]) -> tuple[object, ...]:
    served = _target(row, "served")
    return (
        row["id"],
        row["job"],
        words.moment(row["scheduled_for"]),
        row["trigger"],
        row["state"],
        served,
        _why(row),
        _took(row),
    )


def _why(row: Mapping[str, Any]) -> str:
    """Say why a run ended as it did, or why a later target answered."""
    if row["fallback"]:
        return f"fallback: {row['fallback_reason']}"
    spans = row["span_count"] > 1
    return f"{row['reason']} ×{row['span_count']}" if spans else row["reason"] or ""


def _took(row: Mapping[str, Any]) -> str:
    if row["started_at"] is None or row["finished_at"] is None:
        return ""
    return words.length(row["finished_at"] - row["started_at"])


def _target(row: Mapping[str, Any], role: str) -> str:
    provider = row[f"{role}_provider"]
    return f"{provider}/{row[f'{role}_model']}" if provider else ""


def _facts(row: Mapping[str, Any]) -> list[tuple[str, object]]:
    served = _target(row, "served")
    credential = f", credential {row['served_credential']}" if served else ""
    span = f"{row['span_count']} instants from {words.moment(row['span_first'])}" if row["span_first"] else ""
    tokens = (row["input_tokens"], row["output_tokens"])
    return [
        ("run", row["id"]),
        ("job", row["job"]),
        ("state", f"{row['state']} ({row['reason']})" if row["reason"] else row["state"]),
        ("scheduled for", words.moment(row["scheduled_for"])),
        ("stands for", span),
        ("trigger", row["trigger"]),
        ("comes from run", row["parent_id"]),
        ("requested", _target(row, "requested")),
        ("served by", f"{served}{credential}"),
        ("fallback", f"yes, because of {row['fallback_reason']}" if row["fallback"] else ""),
        ("error", row["error_message"]),
        ("truncated", "yes" if row["truncated"] else ""),
        ("shortened", _shortened(row)),
        ("title", row["title"]),
        ("kept quiet", "yes, silent_when is true of its answer" if row["silent"] else ""),
        ("tries", row["tries"]),
        ("started", words.moment(row["started_at"])),
        ("finished", words.moment(row["finished_at"])),
        ("took", _took(row)),
        ("tokens", f"{tokens[0] or 0} in, {tokens[1] or 0} out" if any(tokens) else ""),
    ]


def _shortened(row: Mapping[str, Any]) -> str:
    """Say by how much what was gathered for the prompt had to shrink."""
    before, after = row["compressed_from"], row["compressed_to"]
    return f"its material, from {before:,} to {after:,} characters" if before is not None else ""


def _attempt_line(row: Mapping[str, Any]) -> tuple[object, ...]:
    waited = words.length(row["waited"]) if row["waited"] else ""
    return (
        row["ordinal"],
        row["id"],
        row["purpose"],
        f"{row['provider']}/{row['model']}",
        row["credential"],
        row["outcome"],
        row["error_class"],
        row["code"],
        row["http_status"],
        row["recovery"],
        words.length(row["latency"]),
        f"{waited}: {row['wait_reason']}" if waited and row["wait_reason"] else waited,
        row["message"],
    )


def _delivery_line(row: Mapping[str, Any]) -> tuple[object, ...]:
    state, next_attempt = words.delivery(row)
    return (row["target"], state, row["attempts"], next_attempt, row["last_error"])
