"""Copies of a SQLite database: one snapshot, verified, there whole or not at all; and the way back."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from jobs.errors import Busy, ConfigError, Unavailable, UsageError
from jobs.store import shape
from jobs.store.file_modes import real_file

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
    database itself, or a file that SQLite keeps beside it, or no file: a device, a pipe.
    """
    if _is_part_of(target, database):
        raise UsageError(f"{target} is the database itself, or a part of it; name another file")
    try:
        _refuse_to_replace(target)
        with _verified(database, target) as (part, rows):
            return _put(part, target, rows)
    except (OSError, sqlite3.Error) as exc:
        raise Unavailable(
            f"cannot write the backup {target}: {_said(exc)}; check the path and its disk"
        ) from exc


def revision_of_backup(file: Path) -> str:
    """Return the revision of a database of this program in a file; raises UsageError for anything else.

    One that lacks a table or a column of its revision is no such database; an index can be made anew.
    """
    try:
        if not file.is_file():  # a pipe would be waited for
            raise UsageError(f"{file} is no backup of promptd: it is no file")
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            shape.missing(connection.execute, str(revision)).require_rows(file)
    except (OSError, sqlite3.Error, TypeError) as exc:
        raise UsageError(f"{file} is no backup of promptd: {exc}") from exc
    except ConfigError as exc:
        raise UsageError(f"{file} is no whole backup of promptd: {exc}") from exc
    return str(revision)


@dataclass(frozen=True, slots=True)
class Restored:
    """The copy in its new place, and where that is now which was there before."""

    copy: Backup
    before: Path | None


def restore(file: Path, database: Path, *, now: datetime) -> Restored:
    """Put a verified copy of a file in the place of a database, which is kept beside it under another name.

    Raises Busy while anybody has the database open, Unavailable when the copy is not sound or cannot be made;
    then the database is as it was. Raises UsageError for a file that is the database itself. Where the
    database is a link, it stays one: what it leads to is replaced.
    """
    database = real_file(database)
    if _is_part_of(file, database):
        raise UsageError(f"{file} is the database itself, or a part of it; name a backup")
    try:
        _refuse_to_replace(database)
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(database), _verified(file, database) as (part, rows):
            _give(part, database.parent)
            with _put_aside(database, now) as before:
                return Restored(_put(part, database, rows), before)
    except (OSError, sqlite3.Error) as exc:
        raise Unavailable(f"cannot restore {file} to {database}: {_said(exc)}; nothing was replaced") from exc


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Keep everybody else out of a database, whose log is emptied; one that SQLite cannot read is let be.

    With a log left beside it, what takes its place would be taken for the older part of that log
    (sqlite.org/howtocorrupt.html). Raises Busy.
    """
    if not database.exists():
        yield
        return
    with closing(_opened(database)) as connection:
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            if mode == "delete":
                connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as exc:
            mode = _broken_or_busy(exc)
        if mode == "wal":
            raise _busy(database)
        yield


def _broken_or_busy(error: sqlite3.DatabaseError) -> str:
    locked = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return "wal" if locked else "broken"


def _busy(database: Path) -> Busy:
    return Busy(f"{database} is in use; stop the daemon and whoever else has it open, and try again")


@contextmanager
def _put_aside(database: Path, now: datetime) -> Iterator[Path | None]:
    """Give a database and what is beside it a second name, and take the first from what is beside it.

    Yields the second name, None where there was nothing. After an error that leaves the database where it
    was, all of it has its first name alone again.
    """
    kept = database.with_name(f"{database.name}.replaced.{now:%Y%m%dT%H%M%S}")
    found = [end for end in _OF_A_DATABASE if Path(f"{database}{end}").exists()]
    named: list[str] = []
    try:
        for end in found:
            os.link(f"{database}{end}", f"{kept}{end}")
            named.append(end)
        _sync(database.parent)
        for end in found:
            if end:
                Path(f"{database}{end}").unlink()
        yield kept if found else None
    except OSError:
        if named and database.exists() and database.samefile(kept):
            _put_back(database, kept, named)
        raise


def _put_back(database: Path, kept: Path, named: Sequence[str]) -> None:
    for end in named:
        first, second = Path(f"{database}{end}"), Path(f"{kept}{end}")
        if first.exists():
            second.unlink()
        else:
            second.rename(first)


def _is_part_of(file: Path, database: Path) -> bool:
    return file.resolve() in {Path(f"{database.resolve()}{part}") for part in _OF_A_DATABASE}


def _refuse_to_replace(target: Path) -> None:
    """Raise UsageError for a device, a pipe or whatever else is there and no file."""
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no file, and is not replaced; name another")


def _said(error: OSError | sqlite3.Error) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextmanager
def _verified(source: Path, target: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """Copy to a private file beside the target; give it with its rows by table, once it is sound."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _make_private(part)
        rows = _copied(source, part)
        _sync(part)
        yield part, rows
    finally:
        part.unlink(missing_ok=True)


def _put(part: Path, target: Path, rows: dict[str, int]) -> Backup:
    part.replace(target)
    _sync(target.parent)
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


def _give(path: Path, directory: Path) -> None:
    """Let a file that root has made be its directory's owner's: root restores for a service's own user."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
