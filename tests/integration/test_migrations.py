"""The migrations build exactly the tables of `jobs/store/tables.py`, and leave other databases alone."""

import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from jobs.errors import Unavailable
from jobs.store import migrate
from jobs.store.engine import open_engine
from jobs.store.revision import REVISION, require, revision_of
from jobs.store.tables import metadata

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
OLD_DATABASES = Path(__file__).parents[1] / "fixtures" / "databases"
NOT_OURS = ("alembic_version", "sqlite_sequence")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database is, before there is one."""
    return tmp_path / "promptd.db"


@pytest.fixture
def url(path: Path) -> str:
    """Return its URL."""
    return f"sqlite:///{path}"


def parts_of(sql: str) -> list[str]:
    """Return a CREATE statement as its top-level parts, sorted: SQL gives their order no meaning."""
    sql = re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")")
    head, _, rest = sql.partition("(")
    parts, depth, start = [], 0, 0
    for at, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if (character == "," and depth == 0) or depth < 0:
            parts.append(rest[start:at].strip())
            start = at + 1
    return [head.strip(), *sorted(parts), rest[start:].strip()]


def schema_of(path: Path) -> dict[tuple[str, str], list[str]]:
    """Return everything that a database declares, except what Alembic and SQLite keep for themselves."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        ).fetchall()
    connection.close()
    return {(kind, name): parts_of(sql) for kind, name, sql in rows if name not in NOT_OURS}


def test_a_fresh_database_has_exactly_the_tables_of_the_program(path: Path, url: str, tmp_path: Path) -> None:
    """Columns, CHECKs, foreign keys, AUTOINCREMENT and indexes on expressions, word by word."""
    wanted = tmp_path / "wanted.db"
    engine = open_engine(f"sqlite:///{wanted}", writes=True)
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()

    migrate.upgrade(url, now=NOW)

    assert schema_of(path) == schema_of(wanted)


def test_alembic_sees_no_difference_either(url: str) -> None:
    """What `make check` asks."""
    migrate.upgrade(url, now=NOW)

    assert migrate.differences(url) == []


def test_the_revision_that_is_known_without_alembic_is_the_head(url: str) -> None:
    """`revision.REVISION` is written by hand."""
    assert migrate.head() == REVISION


def test_a_migrated_database_is_at_the_head(url: str) -> None:
    """An empty one has no revision."""
    assert migrate.current(url) is None

    migrate.upgrade(url, now=NOW)

    assert migrate.current(url) == REVISION
    migrate.require_current(url)


def test_a_database_that_was_empty_needs_no_backup(path: Path, url: str) -> None:
    """There is nothing in it to lose."""
    assert migrate.upgrade(url, now=NOW) is None
    assert list(path.parent.glob("*.bak")) == []


def test_an_upgrade_of_a_current_database_does_nothing(path: Path, url: str) -> None:
    """Neither to it nor beside it."""
    migrate.upgrade(url, now=NOW)
    before = dump_of(path)

    assert migrate.upgrade(url, now=NOW) is None
    assert dump_of(path) == before
    assert list(path.parent.glob("*.bak")) == []


def dump_of(path: Path) -> list[str]:
    """Return the whole content of a database as SQL."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_database_of_a_newer_program_is_refused_and_not_touched(path: Path, url: str) -> None:
    """Nobody here knows what its tables mean."""
    migrate.upgrade(url, now=NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("CREATE TABLE of_the_future (id INTEGER)")
    connection.close()
    before = dump_of(path)

    with pytest.raises(Unavailable, match="newer promptd"):
        migrate.upgrade(url, now=NOW)

    assert dump_of(path) == before
    assert list(path.parent.glob("*.bak")) == []


def test_down_to_base_and_up_again_is_the_same_database(path: Path, url: str) -> None:
    """A downgrade leaves none of our tables behind."""
    migrate.upgrade(url, now=NOW)
    before = schema_of(path)

    migrate.downgrade(url, "base")
    assert schema_of(path) == {}
    assert migrate.current(url) is None

    migrate.upgrade(url, now=NOW)
    assert schema_of(path) == before


def test_an_unmigrated_database_is_refused_with_the_command_that_mends_it(url: str) -> None:
    """Reading commands ask without loading Alembic."""
    engine = create_engine(url)
    with engine.connect() as connection, pytest.raises(Unavailable, match="promptd db upgrade"):
        require(connection)
    engine.dispose()

    migrate.upgrade(url, now=NOW)
    with engine.connect() as connection:
        require(connection)
        assert revision_of(connection) == REVISION
    engine.dispose()


def rows_of(path: Path) -> dict[str, list[dict[str, object]]]:
    """Return every row of every table of ours."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY rowid")]
            for name in names
            if name not in NOT_OURS
        }
    connection.close()
    return found


@pytest.mark.parametrize("kept", sorted(OLD_DATABASES.glob("*.sql")), ids=lambda kept: kept.stem)
def test_a_populated_database_of_an_older_program_is_upgraded_without_losing_a_row(
    path: Path, url: str, kept: Path
) -> None:
    """The files are dumps of what the program of that revision wrote; a backup precedes the upgrade."""
    with sqlite3.connect(path) as connection:
        connection.executescript(kept.read_text("utf-8"))
    connection.close()
    before, dumped = rows_of(path), dump_of(path)

    backup = migrate.upgrade(url, now=NOW)

    after = rows_of(path)
    assert migrate.differences(url) == []
    assert backup is not None
    assert dump_of(backup) == dumped
    assert sum(len(rows) for rows in before.values()) > 50
    for table, rows in before.items():
        assert [
            {name: new[name] for name in old} for old, new in zip(rows, after[table], strict=True)
        ] == rows
