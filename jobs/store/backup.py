"""Copies of a SQLite database while all goes on: one snapshot, verified, there whole or not at all."""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jobs.errors import Unavailable, UsageError

_NOT_OURS = "sqlite_%"
_OF_A_DATABASE = ("", "-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Backup:
    """A verified copy: where it is, its size in bytes, and how many rows each table has."""

    path: Path
    size: int
    rows: Mapping[str, int]


def back_up(database: Path, target: Path) -> Backup:
    """Copy a database to a file that nobody else can read, replacing one that is there.

    Writers go on meanwhile: the copy is what was committed when it began. Raises Unavailable when the copy is
    not sound, or cannot be written; then `target` is as it was. Raises UsageError for a target that is the
    database itself, or a file that SQLite keeps beside it.
    """
    if target.resolve() in {Path(f"{database.resolve()}{part}") for part in _OF_A_DATABASE}:
        raise UsageError(f"{target} is the database itself, or a part of it; name another file")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _make_private(part)
        rows = _copied(database, part)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as exc:
        said = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise Unavailable(f"cannot write the backup {target}: {said}; check the path and its disk") from exc
    finally:
        part.unlink(missing_ok=True)
    return Backup(target, target.stat().st_size, MappingProxyType(rows))


def _copied(database: Path, part: Path) -> dict[str, int]:
    """Copy one snapshot, and prove that the copy is sound and whole; return how many rows it has."""
    with closing(_opened(database)) as source, closing(_opened(part)) as copy:
        source.execute("BEGIN")  # the rows are counted in the very snapshot that is copied
        wanted = _counted(source)
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
        found = _counted(copy)
    if verdict != "ok" or found != wanted:
        raise Unavailable(f"the copy of {database} is not sound ({verdict}); see `promptd db check`")
    return found


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def _counted(connection: sqlite3.Connection) -> dict[str, int]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE ? ORDER BY name", (_NOT_OURS,)
    ).fetchall()
    return {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - our tables
        for (name,) in names
    }


def _make_private(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
