"""`promptd db check`, `backup` and `prune`: is the database sound, a copy of it, and less of it."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, Engine

from jobs import clock
from jobs.errors import Unavailable, UsageError
from jobs.store import prune as prune_verbs
from jobs.store import revision, soundness
from jobs.store.backup import back_up
from jobs.store.engine import open_engine, sqlite_path
from jobs.store.prune import Keep, Pruned
from jobs.store.soundness import Soundness
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
    """Say whether a file begins as a SQLite database does, or is empty (sqlite.org/fileformat2.html)."""
    try:
        with file.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except OSError as exc:
        raise UsageError(f"cannot look at {file}: {exc.strerror}; choose another name") from exc
    return head in (b"", _MAGIC)


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@shown
def prune(context: Context, dry_run: bool) -> View:
    """Remove runs that need not be kept: see limits.keep_runs and limits.keep_days.

    What has not ended stays, and so do each job's newest answer and whatever else is still asked for.
    """
    settings, url, now = context.settings, _there(context), clock.utcnow()
    keep = retention.kept(settings, now=now)
    recent = replace(keep, all_since=now - retention.ALERTS_STAY)
    with context.reading() as connection:
        names = prune_verbs.names(connection)
        kept = {name: retention.kept_of_job(settings, name, now=now) for name in names}
        counted = {name: prune_verbs.count_all(connection, name, kept[name]) for name in names}
        outside = prune_verbs.count_attempts(connection, keep)
        notices = prune_verbs.count_alerts(connection, recent)
    pruned = {name: each for name, each in counted.items() if each.runs}
    if not dry_run:
        engine = open_engine(url, writes=True)
        try:
            pruned = {name: _pruned(engine, name, kept[name]) for name in pruned}
            outside = _pruned_all(engine, prune_verbs.prune_attempts, keep)
            notices = _pruned_all(engine, prune_verbs.prune_alerts, recent)
        finally:
            engine.dispose()
    return _prune_view(context, pruned, outside, notices, dry_run=dry_run)


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


def _prune_view(
    context: Context, pruned: dict[str, Pruned], outside: int, notices: int, *, dry_run: bool
) -> View:
    runs = sum(each.runs for each in pruned.values())
    data: dict[str, Any] = {
        "dry_run": dry_run,
        "keep_runs": context.settings.limits.keep_runs,
        "keep_days": context.settings.limits.keep_days,
        "runs": runs,
        "attempts": sum(each.attempts for each in pruned.values()) + outside,
        "dead_letters": sum(each.dead_letters for each in pruned.values()),
        "notices": notices,
        "jobs": [
            {"job": name, "runs": each.runs, "pruned_until": instant(each.until)}
            for name, each in pruned.items()
        ],
    }
    lines = [(name, each.runs, moment(each.until)) for name, each in pruned.items()]
    said = "would be removed" if dry_run else "removed"
    blocks: list[Block] = [Table(("JOB", "RUNS", "UP TO"), lines)] if lines else []
    others = f"{data['attempts']} attempts and {data['notices']} notices"
    told = f"{runs} runs {said}, {data['dead_letters']} dead letters with them; {others}"
    return View(data, [*blocks, told])


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
