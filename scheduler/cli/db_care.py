"""`promptd db check`, `backup` and `prune`: is the database sound, a copy of it, and less of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, Engine

from jobs import clock
from jobs.errors import Unavailable, UsageError
from jobs.store import in_use, revision, soundness, vacuum
from jobs.store import prune as prune_verbs
from jobs.store.backup import back_up
from jobs.store.engine import open_engine, sqlite_path
from jobs.store.prune import Keep, Pruned
from jobs.store.soundness import Soundness
from jobs.store.vacuum import Vacuumed
from scheduler import retention
from scheduler.cli import database, output_file
from scheduler.cli.context import Context
from scheduler.cli.db import shown_name
from scheduler.cli.edge import ExitCode
from scheduler.cli.tables import Block, Facts, Table, View, shown
from scheduler.cli.words import instant, moment

_OTHERS_TURN = 0.02
_BESIDE = ("-wal", "-shm", "-journal")
_MAGIC = b"SQLite format 3\0"
_UNITS = ("bytes", "kB", "MB", "GB")


@click.command("check")
@shown
def check(context: Context) -> View:
    """Check the database's integrity; exit code 1 when something is wrong.

    Of a SQLite file every page, index and foreign key is read; a running daemon goes on meanwhile.
    """
    url = _there(context)
    found = _soundness(url)
    data = {
        "database": shown_name(url),
        "ok": not found.faults,
        "revision": found.revision,
        "wanted": revision.REVISION,
        "size": found.size,
        "wal_size": found.wal_size,
        "unused": found.unused,
        "faults": list(found.faults),
    }
    facts = Facts(
        [
            ("database", shown_name(url)),
            ("revision", found.revision),
            ("size", _size(found.size)),
            ("write-ahead log", _size(found.wal_size)),
            ("unused", _size(found.unused)),
        ]
    )
    blocks: list[Block] = [facts, "\n".join(found.faults) or "sound"]
    return View(data, blocks, code=ExitCode.FAILED if found.faults else ExitCode.DONE)


def _soundness(url: str) -> Soundness:
    path = sqlite_path(url)
    if path is not None:
        return soundness.of_file(path)
    engine = open_engine(url, writes=False)
    try:
        with engine.connect() as connection:
            return soundness.of_server(connection)
    finally:
        engine.dispose()


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@shown
def backup(context: Context, file: Path, force: bool) -> View:
    """Write a verified copy of a SQLite database to FILE, while all goes on.

    Its secrets stay sealed: to restore it, keep the secret key too.
    """
    url = _there(context)
    path = sqlite_path(url)
    if path is None:
        raise UsageError("the database is on a server: back it up with pg_dump, or the server's own tools")
    _refuse_to_destroy(context, file, path, force=force)
    with output_file.written(context):
        made = back_up(path, file.resolve())
    data = {"database": str(path), "backup": str(file), "size": made.size, "rows": dict(made.rows)}
    number = sum(made.rows.values())
    return View(data, [f"{file}: {_size(made.size)}, {number} rows, verified"])


def _refuse_to_destroy(context: Context, file: Path, path: Path, *, force: bool) -> None:
    """Raise UsageError unless a file is new, or is a database that `force` may replace, and not ours."""
    there, own = output_file.is_there(context, file), path.resolve()
    if file.resolve() in {own, *(own.with_name(f"{own.name}{end}") for end in _BESIDE)}:
        raise UsageError(f"{file} belongs to the database itself; choose another place")
    if not there:
        return
    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a directory; name a file in it")
    if not force:
        raise UsageError(f"{file} is there already; replace it with --force")
    if file.samefile(path) or not _is_database(file):
        raise UsageError(f"{file} is no earlier backup, and is not replaced; choose another name")


def _is_database(file: Path) -> bool:
    """Say whether a file begins as a SQLite database does, or is empty (sqlite.org/fileformat2.html).

    A pipe would be waited for, and a device is not to be replaced: neither is one.
    """
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as exc:
        raise UsageError(f"cannot look at {file}: {exc.strerror}; choose another name") from exc
    return head in (b"", _MAGIC)


@dataclass(frozen=True, slots=True)
class _Removed:
    """What of each job, and how many attempts outside runs, notices and processes, need not be kept."""

    jobs: dict[str, Pruned]
    attempts: int
    notices: int
    instances: int


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option(
    "--vacuum", "shrink", is_flag=True, help="Then make a SQLite file smaller; not beside a daemon."
)
@shown
def prune(context: Context, dry_run: bool, shrink: bool) -> View:
    """Remove runs that need not be kept: see limits.keep_runs and limits.keep_days.

    What has not ended stays, and so do each job's newest answer and whatever else is still asked for. A
    SQLite file stays as large as it was, for what comes next, unless --vacuum writes it anew: that takes
    twice its size on the disk for a while. Exit code 75: --vacuum while the database is in use.
    """
    url, now = _there(context), clock.utcnow()
    if shrink:
        _refuse_to_vacuum(url, now, dry_run=dry_run)
    removed = _superfluous(context, now)
    if not dry_run:
        removed = _removed(context, url, now, removed)
    path, done = sqlite_path(url), None
    if shrink and path is not None:
        _refuse_to_vacuum(url, clock.utcnow(), dry_run=dry_run)  # to remove has taken its time
        done = vacuum.vacuum(path)
    return _prune_view(context, removed, dry_run=dry_run, path=path, vacuumed=done)


def _refuse_to_vacuum(url: str, now: datetime, *, dry_run: bool) -> None:
    """Raise UsageError where there is nothing to vacuum, Busy while a process works on the database."""
    if dry_run:
        raise UsageError("--vacuum changes the file; leave one of --vacuum and --dry-run away")
    if sqlite_path(url) is None:
        raise UsageError("the database is on a server, which vacuums by itself; leave --vacuum away")
    engine = open_engine(url, writes=False)
    try:
        with engine.connect() as connection:
            in_use.require_idle(connection, now=now)
    finally:
        engine.dispose()


def _limits(context: Context, now: datetime) -> tuple[Keep, Keep]:
    """Return what is kept of attempts and processes, and what of alerts."""
    keep = retention.kept(context.settings, now=now)
    return keep, replace(keep, all_since=now - retention.ALERTS_STAY)


def _superfluous(context: Context, now: datetime) -> _Removed:
    """Count what would be removed."""
    keep, recent = _limits(context, now)
    with context.reading() as connection:
        counted = {
            name: prune_verbs.count_all(
                connection, name, retention.kept_of_job(context.settings, name, now=now)
            )
            for name in prune_verbs.names(connection)
        }
        return _Removed(
            {name: each for name, each in counted.items() if each.runs},
            prune_verbs.count_attempts(connection, keep),
            prune_verbs.count_alerts(connection, recent),
            len(prune_verbs.ended_instances(connection, keep, now=now)),
        )


def _removed(context: Context, url: str, now: datetime, found: _Removed) -> _Removed:
    """Remove it; with the runs more processes become superfluous."""
    keep, recent = _limits(context, now)
    engine = open_engine(url, writes=True)
    try:
        return _Removed(
            {
                name: _pruned(engine, name, retention.kept_of_job(context.settings, name, now=now))
                for name in found.jobs
            },
            _pruned_all(engine, prune_verbs.prune_attempts, keep),
            _pruned_all(engine, prune_verbs.prune_alerts, recent),
            _pruned_instances(context, engine, now),
        )
    finally:
        engine.dispose()


def _pruned(engine: Engine, job: str, keep: Keep) -> Pruned:
    """Remove a job's superfluous runs; between two portions others can write."""
    done = Pruned()
    while True:
        with engine.begin() as connection:
            portion = prune_verbs.prune(connection, job, keep)
        if not portion.runs:
            return done
        done += portion
        time.sleep(_OTHERS_TURN)


def _pruned_all(engine: Engine, verb: Callable[[Connection, Keep], int], keep: Keep) -> int:
    removed = 0
    while True:
        with engine.begin() as connection:
            portion = verb(connection, keep)
        if not portion:
            return removed
        removed += portion
        time.sleep(_OTHERS_TURN)


def _pruned_instances(context: Context, engine: Engine, now: datetime) -> int:
    with context.reading() as connection:
        left = prune_verbs.ended_instances(connection, retention.kept(context.settings, now=now), now=now)
    removed = len(left)
    while left:
        with engine.begin() as connection:
            left = left[prune_verbs.prune_instances(connection, left) :]
        time.sleep(_OTHERS_TURN)
    return removed


def _prune_view(
    context: Context, removed: _Removed, *, dry_run: bool, path: Path | None, vacuumed: Vacuumed | None
) -> View:
    runs = sum(each.runs for each in removed.jobs.values())
    unused = vacuum.unused(path) if path is not None else None
    data: dict[str, Any] = {
        "dry_run": dry_run,
        "keep_runs": context.settings.limits.keep_runs,
        "keep_days": context.settings.limits.keep_days,
        "runs": runs,
        "attempts": sum(each.attempts for each in removed.jobs.values()) + removed.attempts,
        "dead_letters": sum(each.dead_letters for each in removed.jobs.values()),
        "notices": removed.notices,
        "instances": removed.instances,
        "unused": unused,
        "vacuumed": {"before": vacuumed.before, "after": vacuumed.after} if vacuumed else None,
        "jobs": [
            {"job": name, "runs": each.runs, "pruned_until": instant(each.until)}
            for name, each in removed.jobs.items()
        ],
    }
    lines = [(name, each.runs, moment(each.until)) for name, each in removed.jobs.items()]
    said = "would be removed" if dry_run else "removed"
    blocks: list[Block] = [Table(("JOB", "RUNS", "UP TO"), lines)] if lines else []
    others = f"{data['attempts']} attempts, {data['notices']} notices and {data['instances']} ended processes"
    told = f"{runs} runs {said}, {data['dead_letters']} dead letters with them; {others}"
    return View(data, [*blocks, told, *_told_of_size(unused, vacuumed)])


def _told_of_size(unused: int | None, vacuumed: Vacuumed | None) -> list[str]:
    """Say how large the file is now, or that it has not become smaller."""
    if vacuumed is not None:
        return [f"the file is {_size(vacuumed.after)} now; it was {_size(vacuumed.before)}"]
    if not unused:
        return []
    return [
        f"{_size(unused)} of the file are unused and wait for what comes; "
        "`promptd db prune --vacuum` makes it smaller while no daemon runs"
    ]


def _there(context: Context) -> str:
    """Return the database's URL; raises Unavailable where there is none."""
    url = context.settings.database
    if not database.is_there(url):
        raise Unavailable("there is no database yet; make it with `promptd db upgrade`, or `promptd start`")
    return url


def _size(number: int | None) -> str:
    """Return a number of bytes in the largest unit that it fills."""
    if number is None:
        return ""
    size, unit = float(number), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"
