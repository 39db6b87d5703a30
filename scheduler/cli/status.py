"""`promptd status`: the daemon, what is due, what runs, and what is closed, paused or held."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection

from jobs import clock
from jobs.mark import Status
from jobs.store import holds, instances, ledger
from jobs.store import jobs as job_verbs
from jobs.store.holds import HeldJob
from jobs.store.jobs import JobState
from scheduler import __version__
from scheduler.cli import database, words
from scheduler.cli.auth import TITLES, read_standings
from scheduler.cli.auth_shapes import standing_line, standing_shape
from scheduler.cli.context import Context
from scheduler.cli.db import shown_name
from scheduler.cli.job_next import next_rows
from scheduler.cli.standing import Standing
from scheduler.cli.tables import Block, Facts, Table, View, shown
from scheduler.cli.words import instant

_NEXT = 5


@click.command("status")
@shown
def status(context: Context) -> View:
    """Say how the daemon, jobs, runs and credentials stand."""
    now, settings = clock.utcnow(), context.settings
    with context.reading() as connection:
        daemon = _daemon(connection, now)
        states = job_verbs.states(connection)
        held = holds.held(connection)
        open_runs = ledger.open_runs(connection)
        standings, notes = read_standings(context, connection, now=now)
    closed = [row for row in standings if row.status not in (Status.OK, Status.UNREADABLE)]
    unreadable = [row for row in standings if row.status is Status.UNREADABLE]
    data = {
        "version": __version__,
        "config": str(settings.source),
        "database": {"name": shown_name(settings.database), "exists": database.is_there(settings.database)},
        "daemon": daemon,
        "next": next_rows(settings.jobs.values(), states, count=_NEXT, now=now),
        "open_runs": [_open_run(row) for row in open_runs],
        "closed_credentials": [standing_shape(row) for row in closed],
        "unreadable_credentials": [{**standing_shape(row), "why": row.why} for row in unreadable],
        "paused_jobs": _paused(settings.jobs, states),
        "held_jobs": _held(settings.jobs, held, now),
        "warnings": list(settings.warnings),
    }
    return View(data, _blocks(data, [*closed, *unreadable], now), notes=notes)


def _daemon(connection: Connection, now: datetime) -> dict[str, Any] | None:
    found = instances.daemon(connection)
    if found is None:
        return None
    pid, started_at, heartbeat_at = found
    return {
        "pid": pid,
        "started_at": instant(started_at),
        "heartbeat_at": instant(heartbeat_at),
        "fresh": now - heartbeat_at <= instances.GONE_AFTER,
    }


def _open_run(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "job": row["job"],
        "state": row["state"],
        "trigger": row["trigger"],
        "scheduled_for": instant(row["scheduled_for"]),
        "started_at": instant(row["started_at"]),
    }


def _paused(jobs: Mapping[str, object], states: Mapping[str, JobState]) -> list[dict[str, Any]]:
    return [
        {"job": name, "paused_at": instant(state.paused_at), "reason": state.pause_reason}
        for name, state in sorted(states.items())
        if name in jobs and state.paused_at is not None
    ]


def _held(jobs: Mapping[str, object], held: Mapping[str, HeldJob], now: datetime) -> list[dict[str, Any]]:
    """Return the held jobs; a hold whose time has passed is not there."""
    return [
        {"job": name, "held_until": instant(each.held_until), "reason": each.hold_reason}
        for name, each in sorted(held.items())
        if name in jobs and each.held_until > now
    ]


def _blocks(data: Mapping[str, Any], standings: Sequence[Standing], now: datetime) -> list[Block]:
    blocks: list[Block] = [
        Facts(
            [
                ("daemon", _daemon_words(data["daemon"], now)),
                ("configuration", data["config"]),
                ("database", data["database"]["name"] + _there(data["database"])),
            ]
        )
    ]
    tables = (
        Table(("DUE NEXT", "AT", "LOCAL", "NOTE"), [tuple(row.values()) for row in data["next"]]),
        Table(("RUN", "JOB", "STATE", "TRIGGER", "SCHEDULED FOR"), _run_lines(data["open_runs"])),
        Table(TITLES, [standing_line(row, now=now) for row in standings]),
        Table(("PAUSED JOB", "SINCE", "REASON"), [tuple(row.values()) for row in data["paused_jobs"]]),
        Table(("HELD JOB", "UNTIL", "REASON"), [_held_line(row, now) for row in data["held_jobs"]]),
        Table(("WARNING",), [(warning,) for warning in data["warnings"]]),
    )
    return [*blocks, *(table for table in tables if table.rows)]


def _run_lines(shapes: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [(s["id"], s["job"], s["state"], s["trigger"], s["scheduled_for"]) for s in shapes]


def _held_line(shape: Mapping[str, Any], now: datetime) -> tuple[object, ...]:
    until = datetime.fromisoformat(shape["held_until"])
    return shape["job"], f"{words.moment(until)}, for {words.length(until - now)}", shape["reason"]


def _daemon_words(daemon: Mapping[str, Any] | None, now: datetime) -> str:
    if daemon is None:
        return "not running; start it with `promptd start`"
    since = words.length(now - datetime.fromisoformat(daemon["started_at"]))
    beat = words.ago(datetime.fromisoformat(daemon["heartbeat_at"]), now=now)
    stale = "" if daemon["fresh"] else f", but silent: last heard of {beat}"
    return f"running for {since}, process {daemon['pid']}{stale}"


def _there(shape: Mapping[str, Any]) -> str:
    return "" if shape["exists"] else " (not there yet)"
