"""The migrations on PostgreSQL: the tables of the program, word by word. Rows: test_upgrade_and_back.py."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, text
from support.ledger import NOW
from support.postgres import Server
from support.revisions import step_up

from jobs.errors import Unavailable
from jobs.store import migrate
from jobs.store.engine import open_engine
from jobs.store.revision import REVISION
from jobs.store.tables import metadata

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


def test_each_way_back_leads_to_the_schema_of_its_revision_and_up_again_to_the_newest(url: str) -> None:
    made = {}
    for revision in migrate.revisions():
        step_up(url, revision)
        made[revision] = schema_of(url)

    for revision in reversed(migrate.revisions()[:-1]):
        migrate.downgrade(url, revision)
        assert schema_of(url) == made[revision], revision
        migrate.upgrade(url, now=NOW)
        assert schema_of(url) == made[REVISION], revision


def test_a_database_of_a_newer_program_is_refused_and_not_touched(url: str) -> None:
    migrate.upgrade(url, now=NOW)
    with engine_on(url) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = schema_of(url)

    with pytest.raises(Unavailable, match="newer promptd"):
        migrate.upgrade(url, now=NOW)

    assert schema_of(url) == before
