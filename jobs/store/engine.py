"""Databases as they must be opened: pragmas, explicit transactions, tight file modes."""

import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from jobs import clock
from jobs.errors import Unavailable
from jobs.store import file_modes, postgresql

BUSY_TIMEOUT_MS = 10_000
ASKED_AGAIN = (0.0005, 0.0015)  # seconds
LONGEST_LOG = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut when it begins anew: it has grown while somebody read for long.

The writer does that itself: a checkpoint of another connection would be one more chance for the WAL-reset bug
of SQLite before 3.51.3 (sqlite.org/wal.html#walresetbug).
"""

_KINDS = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_IOERR: "io",  # a quota that is used up, or a file system that has become read-only
    sqlite3.SQLITE_CANTOPEN: "unreachable",
}
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    f"PRAGMA journal_size_limit = {LONGEST_LOG}",
)


def open_engine(url: str, *, writes: bool, connections: int = 1) -> Engine:
    """Return an engine with a bounded number of connections, made on first use.

    A writing SQLite engine begins every transaction with BEGIN IMMEDIATE; a reading one with a plain
    BEGIN; on PostgreSQL `jobs.store.postgresql` does what amounts to the same. Raises Unavailable when the
    file or its directory cannot be made, or the server's driver is missing; ConfigError where others may read
    or change a file that is to be written.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return postgresql.open_server(parsed, writes=writes, connections=connections)
    path = _made_private(parsed)
    if writes:
        file_modes.require_private_database(path)
    engine = create_engine(
        parsed,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _prepare)
    if writes:
        event.listen(engine, "connect", _wait_ourselves)
    event.listen(engine, "begin", _begin_writing if writes else _begin_reading)
    return engine


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, None for another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # The driver's own transactions are off: they begin late and deferred, which loses updates.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _wait_ourselves(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA busy_timeout = 0")  # see `_begin_writing`; nothing after BEGIN waits


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection) -> None:
    """Wait for the file's one writer to be done, for as long as `BUSY_TIMEOUT_MS`.

    SQLite's own waiting sleeps 1, 2, 5, 10, … 100 ms (sqlite3.c, sqliteDefaultBusyCallback): where several
    processes write, nobody does for most of that time.
    """
    until = clock.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as exc:
            if kind_of(exc) != "locked" or clock.monotonic() >= until:
                raise
            time.sleep(random.uniform(*ASKED_AGAIN))  # noqa: S311 - nothing secret hangs on it
        else:
            return


def _made_private(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise Unavailable("an in-memory database forgets everything; give a file: sqlite:///promptd.db")
    path = Path(url.database)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise Unavailable(
            f"cannot open the database {path}: {exc.strerror}; check the path and its owner"
        ) from exc
    return path


def kind_of(error: DBAPIError) -> str:
    """Say what kind of trouble it is: `full`, `locked`, `readonly`, `io`, `unreachable` or `other`.

    After `full` SQLite has rolled back already.
    """
    cause = error.orig
    if not isinstance(cause, sqlite3.Error):
        return postgresql.kind_of(error)
    code = getattr(cause, "sqlite_errorcode", None)
    return _KINDS.get(code & 0xFF if code is not None else -1, "other")
