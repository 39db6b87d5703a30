"""`promptd db downgrade` and `restore`: the ways back, to an older version's tables or to a backup."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs import clock
from jobs.errors import Busy, Unavailable, UsageError
from jobs.store import revision
from jobs.store.backup import Restored, restore, revision_of_backup
from jobs.store.engine import sqlite_path
from scheduler.cli import database, remote
from scheduler.cli.context import Context
from scheduler.cli.db import looked_at, shown_name
from scheduler.cli.tables import View, shown

if TYPE_CHECKING:
    from jobs.store.migrate import WentBack

_AFTERWARDS = (
    "what fell due since then counts as missed: catch_up decides about it",
    "a login that was refreshed since then has to be made again: `promptd auth login`",
)


@click.command("downgrade")
@click.option("--to", metavar="REVISION", help="How far back; the revision before by default.")
@click.option("--backed-up", is_flag=True, help="A server's database: it has been backed up (pg_dump).")
@shown
def downgrade(context: Context, to: str | None, backed_up: bool) -> View:
    """Migrate the database back, for an older version of promptd; a backup of a SQLite file is made first.

    What only this version knows is given up: it stays in the backup. Exit code 75: the database is in use.
    """
    from jobs.store import migrate  # noqa: PLC0415 - Alembic is loaded by few commands

    url = context.settings.database
    if not database.is_there(url):
        raise Unavailable("there is no database yet: there is nothing to go back from")
    if sqlite_path(url) is None and not backed_up:
        raise UsageError("a server's database is backed up with pg_dump first; then say so with --backed-up")
    _refuse_beside_a_daemon(context)
    gone_back = migrate.go_back(url, to=to, now=clock.utcnow())
    data = {
        "database": shown_name(url),
        "from": gone_back.before,
        "revision": gone_back.revision,
        "backup": str(gone_back.backup) if gone_back.backup else None,
        "given_up": dict(gone_back.given_up),
    }
    return View(data, ["\n".join(_went_back(shown_name(url), gone_back))])


def _went_back(name: str, done: "WentBack") -> Iterator[str]:
    kept = f"; the backup is {done.backup}" if done.backup else ""
    yield f"{name}: migrated back from {done.before} to {done.revision}{kept}"
    if done.given_up:
        told = ", ".join(f"{number} of {table}" for table, number in done.given_up.items())
        yield f"rows that revision {done.revision} has no place for: {told}"
    yield (
        f"now start the promptd that wants revision {done.revision}, as its `promptd db current` says; "
        "this version would migrate the database again"
    )


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@shown
def restore_(context: Context, file: Path) -> View:
    """Put a backup in the place of the SQLite database, which is kept beside it under another name.

    FILE is what `promptd db backup`, an upgrade or a downgrade has written. Exit code 75: the database is in
    use.
    """
    url = context.settings.database
    path = sqlite_path(url)
    if path is None:
        raise UsageError("the database is on a server: restore it with pg_restore, or the server's own tools")
    found = revision_of_backup(file)
    if found > revision.REVISION:
        raise UsageError(revision.newer(found))
    _refuse_beside_a_daemon(context)
    done = restore(file.resolve(), path, now=clock.utcnow())
    _, lost = looked_at(url)
    return View(_restored_shape(path, file, found, done), ["\n".join(_told(path, file, found, done, lost))])


def _restored_shape(path: Path, file: Path, found: str, done: Restored) -> dict[str, Any]:
    return {
        "database": str(path),
        "backup": str(file),
        "revision": found,
        "wanted": revision.REVISION,
        "rows": dict(done.copy.rows),
        "before": str(done.before) if done.before else None,
    }


def _told(path: Path, file: Path, found: str, done: Restored, lost: Sequence[str]) -> list[str]:
    number = sum(done.copy.rows.values())
    lines = [f"{path}: restored from {file}: revision {found}, {number} rows, verified"]
    if done.before is not None:
        lines.append(f"what was there before is {done.before}")
    if found != revision.REVISION:
        lines.append(f"`promptd start` and `promptd db upgrade` bring it to {revision.REVISION}")
    if lost:
        lines.append(
            f"it lacks the index {', '.join(lost)}, which `promptd start` and `promptd db upgrade` make"
        )
    return [*lines, *_AFTERWARDS]


def _refuse_beside_a_daemon(context: Context) -> None:
    """Raise Busy where the configuration's daemon answers; others are found by what they hold."""
    daemon = remote.running(context)
    if daemon is not None:
        pid = daemon.facts.get("pid")
        daemon.connection.close()
        raise Busy(f"the daemon uses the database (process {pid}); stop it with `promptd stop`")
