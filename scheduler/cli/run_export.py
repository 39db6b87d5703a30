"""`promptd run export`: any number of runs as CSV or JSON lines, written as they are read."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click

from jobs import clock
from jobs.errors import Unavailable, UsageError
from jobs.run import RunState
from jobs.store import ledger
from jobs.store.ledger import RunFilter
from jobs.text import escaped, readable
from scheduler.cli import output_file
from scheduler.cli.context import Context, pass_context
from scheduler.cli.edge import ExitCode
from scheduler.cli.params import JOB, PROVIDER
from scheduler.cli.run_shapes import run_shape
from scheduler.cli.words import Since, instant

Row = Mapping[str, Any]

COLUMNS = (
    *("id", "job", "scheduled_for", "trigger", "parent_id", "state", "reason", "span_first", "span_count"),
    *("requested_provider", "requested_model", "served_provider", "served_model", "served_credential"),
    *("fallback", "fallback_reason", "error_class", "error_message", "truncated", "title", "tries"),
    *("input_tokens", "output_tokens", "created_at", "started_at", "finished_at", "output"),
)
"""The columns of the CSV, in an order that stays; new ones come at the end."""


@click.command("export")
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--job", type=JOB, help="Only runs of this job.")
@click.option("--state", type=click.Choice([str(state) for state in RunState]), help="Only in this state.")
@click.option("--since", type=Since(), help="Only due since then: 2h, 7d, or an ISO time (UTC).")
@click.option("--provider", type=PROVIDER, help="Only asked of or served by it, in any spelling.")
@click.option("--limit", type=click.IntRange(1), help="At most so many, the newest. Default: all.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
@pass_context
def export(
    context: Context,
    form: str,
    job: str | None,
    state: str | None,
    since: datetime | timedelta | None,
    provider: str | None,
    limit: int | None,
    output: Path | None,
) -> int:
    """Write runs as CSV or JSON lines, newest first.

    CSV is quoted as RFC 4180 says and holds values as they are: a spreadsheet takes a text that begins
    with = + - @ for a formula, so import such columns as text. JSON lines are shaped as `run list --json`.
    """
    wanted = RunFilter(
        job=job,
        state=RunState(state) if state else None,
        since=clock.utcnow() - since if isinstance(since, timedelta) else since,
        provider=context.provider_name(provider) if provider else None,
        limit=limit,
    )
    if output is not None and output_file.is_there(context, output):
        raise UsageError(f"{output} is there already; remove it, or choose another name")
    with output_file.written(context), _to(output) as out, context.reading() as connection:
        rows = ledger.each_run(connection, wanted)
        if form == "csv":
            _write_csv(out, rows)
        else:
            for row, deliveries in rows:
                line = json.dumps(run_shape(row, deliveries=deliveries), ensure_ascii=False)
                out.write(escaped(line) + "\n")
    return ExitCode.DONE


def _write_csv(out: TextIO, rows: Iterator[tuple[Row, list[Row]]]) -> None:
    writer, shown = csv.writer(out), out.isatty()
    writer.writerow(COLUMNS)
    for row, _ in rows:
        cells = [_cell(row[name]) for name in COLUMNS]
        writer.writerow([readable(each) if shown and isinstance(each, str) else each for each in cells])


def _cell(value: Any) -> Any:
    match value:
        case datetime():
            return instant(value)
        case bool():
            return str(value).lower()
        case _:
            return value


@contextmanager
def _to(path: Path | None) -> Iterator[TextIO]:
    """Give what is written to: standard output, or a file that is there as a whole or not at all."""
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", newline="") as out:
            yield out
        part.replace(path)
    except OSError as exc:
        raise Unavailable(f"cannot write {path}: {exc.strerror}; check the path and its disk") from exc
    finally:
        part.unlink(missing_ok=True)
