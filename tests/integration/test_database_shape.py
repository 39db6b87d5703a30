"""A database that says it is of this revision has all that belongs to it, or says what is missing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from support.ledger import NOW, url_of
from support.revisions import step_up
from test_cli_ground import CONFIG, KEYS, World

from jobs.errors import ConfigError
from jobs.store import migrate, shape, soundness
from jobs.store.revision import REVISION
from jobs.store.tables import metadata
from scheduler.app import up_to_date

RESTORE = "put a backup in its place with `promptd db restore`"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A house whose provider has a key."""
    config = CONFIG.replace("model: openai-codex/gpt-5.5\n", "").replace("  - zai/glm-5.1\n", "")
    return World(tmp_path, config="model: zai/glm-5.1\n" + config, environ={**KEYS, "SSL_CERT_FILE": ""})


def path_of(world: World) -> Path:
    return Path(world.settings.database.removeprefix("sqlite:///"))


def do(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


def emptied(path: Path) -> Path:
    """Make a file that has the revision and none of the tables."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    do(path, "CREATE TABLE alembic_version (version_num TEXT NOT NULL)")
    do(path, f"INSERT INTO alembic_version VALUES ('{REVISION}')")
    return path


def test_a_revision_without_tables_is_no_database_for_anybody(world: World) -> None:
    """Each command that needs it says which are missing, and what to do."""
    path = emptied(path_of(world))

    found = world.json("db-check", "db", "check", code=1)
    assert found["faults"] == [f"the table {name} is missing: {RESTORE}" for name in tables()]
    for words in (("start",), ("ask", "hello"), ("db", "upgrade"), ("db", "downgrade")):
        said = world.run(*words)
        assert (said.code, said.err.count("\n")) == (78, 1), said
        assert said.err.startswith(f"{path}: lacks the table ")
        assert said.err.endswith(f"; {RESTORE}\n")
    findings = world.json("doctor", "doctor", code=1)["findings"]
    seen = {each["seen"]: each["mend"] for each in findings if each["name"] == "database"}
    assert seen["the table tokens is missing"] == RESTORE
    assert path.stat().st_size == 8192, "nothing was made in it"


def tables() -> list[str]:
    return [table.name for table in metadata.sorted_tables]


@pytest.mark.parametrize("revision", [REVISION, "0001"])
def test_a_file_without_our_tables_is_not_restored(world: World, tmp_path: Path, revision: str) -> None:
    """Nor is one that lacks a column."""
    path, torn, bare = path_of(world), tmp_path / "torn.db", emptied(tmp_path / "bare.db")
    do(bare, f"UPDATE alembic_version SET version_num = '{revision}'")
    assert world.run("db", "backup", str(torn)).code == 0
    do(torn, "ALTER TABLE runs DROP COLUMN silent")
    before = path.stat().st_ino

    for file, lacks in ((bare, "the table credentials"), (torn, "the column runs.silent")):
        said = world.run("db", "restore", str(file))
        assert (said.code, lacks in said.err) == (2, True), said
    assert path.stat().st_ino == before


def test_what_is_missing_of_a_table_is_told_by_name(world: World) -> None:
    path = path_of(world)
    do(path, "ALTER TABLE runs DROP COLUMN silent", "DROP INDEX ix_runs_job_id", "DROP TABLE tokens")

    assert soundness.of_file(path).faults == (
        f"the table tokens is missing: {RESTORE}",
        f"the column runs.silent is missing: {RESTORE}",
        "the index ix_runs_job_id is missing: run `promptd db upgrade`",
    )


def test_a_missing_index_is_told_and_made_by_an_upgrade(world: World, tmp_path: Path) -> None:
    """After a backup of the database as it was; a command that cannot make it refuses."""
    path, copy = path_of(world), tmp_path / "copy.db"
    do(path, "DROP INDEX uq_marks_subject", "CREATE INDEX uq_marks_subject ON marks (provider)")
    assert world.run("db", "backup", str(copy)).code == 0

    (fault,) = world.json("db-check", "db", "check", code=1)["faults"]
    refused, too = world.run("ask", "hello"), world.run("db", "downgrade")
    done = world.json("db-upgrade", "db", "upgrade")

    assert fault == "the index uq_marks_subject is missing: run `promptd db upgrade`"
    assert (refused.code, "lacks the index uq_marks_subject; run" in refused.err) == (78, True)
    assert (too.code, too.err) == (refused.code, refused.err)
    assert (done["changed"], done["from"], done["revision"]) == (True, REVISION, REVISION)
    assert soundness.of_file(path).faults == ()
    assert soundness.of_file(Path(done["backup"])).faults == (fault,)
    assert "it lacks the index uq_marks_subject" in world.run("db", "restore", str(copy)).out
    assert "it lacked uq_marks_subject, which was made" in world.run("db", "upgrade").out
    assert world.json("db-upgrade", "db", "upgrade")["changed"] is False


def test_a_start_makes_it_too(world: World) -> None:
    path = path_of(world)
    do(path, "DROP INDEX uq_runs_instant")

    assert up_to_date(world.settings.database) is not None

    assert soundness.of_file(path).faults == ()
    assert up_to_date(world.settings.database) is None


def test_an_index_that_rows_contradict_is_not_made(world: World) -> None:
    path = path_of(world)
    row = (
        "INSERT INTO alerts (key, kind, message, opened_at, told_at) VALUES ('k', 'job_held', 'm', '1', '1')"
    )
    do(path, "DROP INDEX uq_alerts_open", row, row)

    said = world.run("db", "upgrade")

    assert (said.code, "does not let the index uq_alerts_open be made" in said.err) == (78, True), said
    assert len(soundness.of_file(path).faults) == 1
    assert list(path.parent.glob("*.bak")) == [], "each vain start would leave another one"


def test_a_table_that_others_point_to_may_be_the_one_that_is_missing(world: World) -> None:
    """SQLite's own check of foreign keys goes on without it."""
    path = path_of(world)
    do(path, "PRAGMA foreign_keys = OFF", "DROP TABLE attempts")

    assert soundness.of_file(path).faults == (f"the table attempts is missing: {RESTORE}",)


def test_an_index_that_an_earlier_version_has_lost_is_made_on_the_way_up(tmp_path: Path) -> None:
    """A downgrade to the first revision lost it once."""
    path = tmp_path / "promptd.db"
    step_up(url_of(path), "0001")
    do(path, "DROP INDEX uq_marks_subject")

    migrate.upgrade(url_of(path), now=NOW)

    assert soundness.of_file(path).faults == ()


def test_either_kind_of_database_says_what_it_lacks(database: str) -> None:
    """And gets its indexes back; not its columns."""
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX uq_marks_subject")
        lost = shape.missing_from(connection, REVISION)
        if connection.dialect.name == "postgresql":
            said = soundness.of_server(connection).faults
            assert said == ("the index uq_marks_subject is missing: run `promptd db upgrade`",)
    assert (lost.tables, lost.columns, lost.indexes) == ((), (), ("uq_marks_subject",))

    migrate.upgrade(database, now=NOW)

    with engine.begin() as connection:
        shape.require(connection)
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN probed_at")
    engine.dispose()
    with pytest.raises(ConfigError, match=r"lacks the column jobs\.probed_at; (put|restore) a backup"):
        migrate.upgrade(database, now=NOW)
