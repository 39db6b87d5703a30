"""Whether a database is sound: what its own checks say, its revision, and how large it is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from jobs.store import shape
from jobs.store.file_modes import real_file
from jobs.store.revision import REVISION, revision_of

MOST_TOLD = 100
_INVALID = {
    "index {} is not valid; run REINDEX": (
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
    ),
    "constraint {} was never validated; run ALTER TABLE … VALIDATE CONSTRAINT": (
        "SELECT conname FROM pg_constraint WHERE NOT convalidated"
    ),
}


@dataclass(frozen=True, slots=True)
class Soundness:
    """What was found: `faults` in words, sizes in bytes. `unused` is what the file could be smaller by."""

    faults: tuple[str, ...]
    revision: str | None
    size: int
    wal_size: int | None = None
    unused: int | None = None


def of_file(path: Path) -> Soundness:
    """Check a SQLite file without writing to it; a file that SQLite cannot read is a fault too."""
    sizes = path.stat().st_size, log_size(path)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")
            revision = _revision(connection)
            lost = shape.missing(connection.execute, revision)
            faults = [*_file_faults(connection), *lost.faults(), *_of_revision(revision)]
            pages, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
            )
    except sqlite3.DatabaseError as exc:
        return Soundness((f"SQLite cannot read it: {exc}",), None, *sizes)
    return Soundness(tuple(faults[:MOST_TOLD]), revision, *sizes, unused=pages * size)


def log_size(path: Path) -> int:
    """Return how many bytes the write-ahead log beside a SQLite file has; 0 where there is none."""
    try:
        real = real_file(path)
        return real.with_name(f"{real.name}-wal").stat().st_size
    except OSError:
        return 0


def _revision(connection: sqlite3.Connection) -> str | None:
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(row[0]) if row else None


def _file_faults(connection: sqlite3.Connection) -> Iterator[str]:
    for (said,) in connection.execute(f"PRAGMA integrity_check({MOST_TOLD})"):
        if said != "ok":
            yield f"integrity: {said}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"foreign key: row {row} of {table} points to no row of {parent}"


def of_server(connection: Connection) -> Soundness:
    """Check what a PostgreSQL server lets its users check: its constraints and indexes are in force."""
    revision = revision_of(connection)
    faults = [
        told.format(name)
        for told, query in _INVALID.items()
        for name in connection.execute(text(query)).scalars()
    ]
    faults += shape.missing_from(connection, revision).faults()
    size = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    return Soundness((*faults, *_of_revision(revision)), revision, size)


def _of_revision(revision: str | None) -> list[str]:
    if revision == REVISION:
        return []
    return [f"its revision is {revision or 'none'}, this promptd wants {REVISION}: run `promptd db upgrade`"]
