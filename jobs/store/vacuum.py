"""Giving the file system back what pruning has left unused in a SQLite file."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import Busy, Unavailable
from jobs.store.engine import BUSY_TIMEOUT_MS


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """How many bytes the file had, and has now."""

    before: int
    after: int


def unused(path: Path) -> int:
    """Return how many bytes of a SQLite file hold nothing; what comes next goes there first."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size")
        )
    return int(pages * size)


def vacuum(path: Path, *, patience: float = BUSY_TIMEOUT_MS / 1000) -> Vacuumed:
    """Write a SQLite file anew, without what is unused in it; nobody else can write meanwhile.

    It is done whole or not at all (sqlite.org/lang_vacuum.html). For a time it takes up to twice the file's
    size beside it, and once where SQLite puts temporary files. Raises Busy when somebody else reads or writes
    it for longer than `patience`, in seconds; Unavailable where there is no room.
    """
    before = path.stat().st_size
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=patience)) as connection:
            connection.execute("VACUUM")
            (held_up, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as exc:
        if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _busy(path) from exc
        raise Unavailable(
            f"cannot vacuum {path}: {exc}; it takes twice {before // 1_000_000 + 1} MB beside the file, and "
            "once that in the directory of temporary files (SQLITE_TMPDIR, else /var/tmp)"
        ) from exc
    if held_up:
        raise _busy(path)
    return Vacuumed(before, path.stat().st_size)


def _busy(path: Path) -> Busy:
    return Busy(f"{path} is in use; stop the daemon and whoever else has it open, and try again")
