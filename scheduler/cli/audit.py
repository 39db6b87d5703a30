"""`promptd audit`: proves that every due instant has its one row, or says which have not."""

from datetime import datetime, timedelta
from typing import Any

import click

from jobs import clock
from scheduler.audit import Fault, Kind
from scheduler.cli import words
from scheduler.cli.context import Context
from scheduler.cli.edge import ExitCode
from scheduler.cli.tables import Block, Table, View, shown
from scheduler.cli.words import Since, instant
from scheduler.ledger_audit import Audit, audited

_SAID = {
    Kind.LOST: "no row",
    Kind.TWICE: "a second row",
    Kind.BESIDE: "a row beside the schedule",
    Kind.MISCOUNTED: "another number than is due",
    Kind.NOT_PAUSED: "not skipped, and the job was paused",
    Kind.PAUSED: "skipped for a pause, and there was none",
    Kind.UNDECIDED: "a row ahead of what is decided",
    Kind.UNREADABLE: "a stored timetable that cannot be read here",
}


@click.command("audit")
@click.option("--since", type=Since(), help="Only what was due since then: 2h, 7d, or an ISO time (UTC).")
@shown
def audit(context: Context, since: datetime | timedelta | None) -> View:
    """Prove that every due instant has its one row.

    What every job's schedule, zone and pauses were at each time is replayed, and compared with the ledger.
    Exit code 1, and the list, when something is missing, doubled or invented.
    """
    now = clock.utcnow()
    begin = now - since if isinstance(since, timedelta) else since
    with context.reading() as connection:
        found = audited(connection, since=begin, now=now)
    code = ExitCode.DONE if found.ok else ExitCode.FAILED
    return View(_shape(found, begin), _blocks(found), notes=_notes(found), code=code)


def _shape(found: Audit, since: datetime | None) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "since": instant(since),
        "jobs": found.jobs,
        "instants": found.instants,
        "rows": found.rows,
        "counts": {str(kind): found.kinds[kind] for kind in Kind},
        "faults": [_fault(job, fault) for job, fault in found.faults],
        "contradictions": [
            {"what": each.what, "count": each.count, "ids": list(each.ids)} for each in found.contradictions
        ],
        "unchecked": [
            {"job": job, "until": instant(until), "rows": rows}
            for job, (until, rows) in found.unchecked.items()
        ],
        "not_recovered": found.open_runs,
    }


def _fault(job: str, fault: Fault) -> dict[str, Any]:
    return {
        "job": job,
        "kind": fault.kind,
        "first": instant(fault.first),
        "last": instant(fault.last),
        "count": fault.count,
        "run_id": fault.run_id,
    }


def _blocks(found: Audit) -> list[Block]:
    if found.ok:
        rows = f"{found.rows} row{'s' if found.rows != 1 else ''}"
        return [f"every instant has its one row: {found.instants} instants of {found.jobs} jobs in {rows}"]
    titles = ("JOB", "WHAT", "FIRST", "LAST", "INSTANTS", "RUN")
    lines = [
        (job, _SAID[each.kind], words.moment(each.first), words.moment(each.last), each.count, each.run_id)
        for job, each in found.faults
    ]
    blocks: list[Block] = [Table(titles, lines)] if lines else []
    said = [f"{_SAID[kind]}: {found.kinds[kind]}" for kind in Kind if found.kinds[kind]]
    said += [f"{each.what}: {each.count} ({', '.join(map(str, each.ids))})" for each in found.contradictions]
    return [*blocks, "\n".join(said)]


def _notes(found: Audit) -> list[str]:
    notes = []
    if found.unchecked:
        rows = sum(number for _, number in found.unchecked.values())
        newest = max(until for until, _ in found.unchecked.values())
        notes.append(
            f"{rows} rows of {len(found.unchecked)} jobs are older than what is known of their schedules "
            f"(up to {words.moment(newest)}), and cannot be checked"
        )
    if found.open_runs:
        notes.append(
            f"{len(found.open_runs)} runs of processes that are gone are not yet recovered: "
            "a running daemon does that"
        )
    return notes
