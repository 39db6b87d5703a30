"""The database is opened as designed: pragmas, explicit transactions, file modes."""

import contextlib
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from support.ledger import url_of

from jobs.errors import Unavailable
from jobs.store.engine import BUSY_TIMEOUT_MS, kind_of, open_engine, sqlite_path

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("pragma", PRAGMAS)
def test_every_connection_has_the_pragmas(tmp_path: Path, writes: bool, pragma: str) -> None:
    """WAL, fsync at every commit, foreign keys."""
    engine = open_engine(url_of(tmp_path / "promptd.db"), writes=writes)

    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == PRAGMAS[pragma]
    engine.dispose()


def test_readers_have_sqlites_patience_and_writers_their_own(tmp_path: Path) -> None:
    """A writer that is told to wait asks again itself, more often than SQLite would."""
    for writes, patience in ((False, BUSY_TIMEOUT_MS), (True, 0)):
        engine = open_engine(url_of(tmp_path / "promptd.db"), writes=writes)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == patience
        engine.dispose()


def test_a_writer_waits_until_the_one_before_it_is_done(tmp_path: Path) -> None:
    """And does not say that the database is locked."""
    path = tmp_path / "promptd.db"
    engine = open_engine(url_of(path), writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    other = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    done.start()

    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    done.join()
    other.close()
    engine.dispose()


def test_the_file_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    """So are the files beside it."""
    path = tmp_path / "state" / "promptd.db"
    engine = open_engine(url_of(path), writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    engine.dispose()

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert files == {"promptd.db": 0o600, "promptd.db-wal": 0o600, "promptd.db-shm": 0o600}


def test_a_writing_transaction_takes_the_write_lock_as_it_begins(tmp_path: Path) -> None:
    """BEGIN IMMEDIATE: what it reads nobody changes before it writes."""
    path = tmp_path / "promptd.db"
    engine = open_engine(url_of(path), writes=True)
    other = sqlite3.connect(path, timeout=0, isolation_level=None)

    with engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


def test_a_reading_transaction_locks_nobody_out_and_sees_one_moment(tmp_path: Path) -> None:
    """A snapshot, as of its first read."""
    url = url_of(tmp_path / "promptd.db")
    writing, reading = open_engine(url, writes=True), open_engine(url, writes=False)
    count = "SELECT count(*) FROM t"
    with writing.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")

    with reading.connect() as reader, reader.begin():
        before = reader.exec_driver_sql(count).scalar_one()
        with writing.begin() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        during = reader.exec_driver_sql(count).scalar_one()
    with reading.connect() as reader:
        after = reader.exec_driver_sql(count).scalar_one()

    assert (before, during, after) == (0, 0, 1)
    writing.dispose()
    reading.dispose()


def test_an_error_rolls_everything_back_even_tables(tmp_path: Path) -> None:
    """The driver's own, half-automatic transactions are off."""
    engine = open_engine(url_of(tmp_path / "promptd.db"), writes=True)

    with contextlib.suppress(ZeroDivisionError), engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        raise ZeroDivisionError

    with engine.connect() as connection, pytest.raises(OperationalError, match="no such table"):
        connection.exec_driver_sql("SELECT * FROM t")
    engine.dispose()


def test_errors_show_no_values(tmp_path: Path) -> None:
    """They may be prompts, or ciphertext."""
    engine = open_engine(url_of(tmp_path / "promptd.db"), writes=True)

    with engine.connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (?)", ("marker",))
    engine.dispose()

    assert "marker" not in str(failed.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    """It would forget every run."""
    with pytest.raises(Unavailable, match="give a file"):
        open_engine(url, writes=True)


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """With what to look at."""
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable, match=r"file/promptd\.db: .*check the path and its owner"):
        open_engine(url_of(tmp_path / "file" / "promptd.db"), writes=True)


def test_a_full_disk_is_told_from_a_lock(tmp_path: Path) -> None:
    """What is done about them differs."""
    engine = open_engine(url_of(tmp_path / "promptd.db"), writes=True)

    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        connection.commit()
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(DBAPIError) as full:
            connection.exec_driver_sql("INSERT INTO t VALUES (randomblob(100000))")
        connection.rollback()
    engine.dispose()

    assert kind_of(full.value) == "full"


def test_only_sqlite_has_a_path() -> None:
    """A server's database has none."""
    assert sqlite_path("sqlite:////var/lib/promptd/promptd.db") == Path("/var/lib/promptd/promptd.db")
    assert sqlite_path("postgresql+psycopg://host/db") is None
