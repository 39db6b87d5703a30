"""The migrations on PostgreSQL: the tables of the program, word by word, and no row lost on the way."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, Table, create_engine, select, text
from support.ledger import NOW, url_of
from support.postgres import Server

from jobs.errors import Unavailable
from jobs.store import migrate
from jobs.store.engine import open_engine
from jobs.store.revision import REVISION
from jobs.store.tables import metadata

OLD_DATABASES = Path(__file__).parents[1] / "fixtures" / "databases"
CATALOGUE = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)"
    " FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
}


@pytest.fixture
def url(postgres: Server) -> Iterator[str]:
    """Yield the URL of an empty database."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@contextmanager
def engine_on(url: str) -> Iterator[Engine]:
    """Give a plain engine, past every layer of ours."""
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def schema_of(url: str) -> dict[str, set[tuple[object, ...]]]:
    """Return everything that a database declares, except what Alembic keeps for itself."""
    with engine_on(url) as engine, engine.connect() as connection:
        return {
            kind: {tuple(row) for row in connection.execute(text(query)) if row[0] != "alembic_version"}
            for kind, query in CATALOGUE.items()
        }


def test_a_fresh_database_has_exactly_the_tables_of_the_program(url: str, postgres: Server) -> None:
    """Columns, CHECKs, foreign keys and indexes, also those on expressions and the partial ones."""
    wanted = postgres.create()
    engine = open_engine(postgres.url(wanted), writes=True)
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()

    assert migrate.upgrade(url, now=NOW) is None, "a server's database is backed up with its own tools"

    made, declared = schema_of(url), schema_of(postgres.url(wanted))
    assert [made[kind] ^ declared[kind] for kind in CATALOGUE] == [set(), set(), set()]
    assert len(made["constraints"]) > 40
    assert migrate.differences(url) == []
    postgres.drop(wanted)


def test_down_to_base_and_up_again_is_the_same_database(url: str) -> None:
    migrate.upgrade(url, now=NOW)
    before = schema_of(url)

    migrate.downgrade(url, "base")
    assert not any(schema_of(url).values())
    assert migrate.current(url) is None

    migrate.upgrade(url, now=NOW)
    assert schema_of(url) == before


def test_a_database_of_a_newer_program_is_refused_and_not_touched(url: str) -> None:
    migrate.upgrade(url, now=NOW)
    with engine_on(url) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = schema_of(url)

    with pytest.raises(Unavailable, match="newer promptd"):
        migrate.upgrade(url, now=NOW)

    assert schema_of(url) == before


def tables_of(engine: Engine) -> list[Table]:
    """Return the tables that there are, those first that others refer to."""
    found = MetaData()
    found.reflect(engine, only=lambda name, _: name != "alembic_version")
    return list(found.sorted_tables)


def rows_of(engine: Engine, tables: list[Table]) -> dict[str, list[dict[str, object]]]:
    """Return every row of these tables."""
    with engine.connect() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in tables
        }


@pytest.mark.parametrize("kept", sorted(OLD_DATABASES.glob("*.sql")), ids=lambda kept: kept.stem)
def test_a_populated_database_of_an_older_program_is_upgraded_without_losing_a_row(
    tmp_path: Path, url: str, kept: Path
) -> None:
    """The rows are what the program of that revision wrote, on SQLite; they are copied into its tables."""
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript(kept.read_text("utf-8"))
    connection.close()
    migrate.upgrade(url, now=NOW)
    migrate.downgrade(url, kept.stem)
    with engine_on(url) as engine, engine_on(url_of(tmp_path / "old.db")) as source:
        tables = tables_of(engine)
        before = rows_of(source, tables)
        with engine.begin() as copying:
            for table in tables:
                if before[table.name]:
                    copying.execute(table.insert(), before[table.name])

        migrate.upgrade(url, now=NOW)

        after = rows_of(engine, tables_of(engine))
    assert migrate.current(url) == REVISION
    assert migrate.differences(url) == []
    assert sum(len(rows) for rows in before.values()) > 50
    for name, rows in before.items():
        for old, new in zip(rows, after[name], strict=True):
            assert new == {**new, **{column: old[column] for column in old.keys() & new.keys()}}
