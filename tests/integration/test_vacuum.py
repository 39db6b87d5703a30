"""`promptd db prune --vacuum`: a database file becomes smaller, and nobody is held up by it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text, update
from support.ledger import make_instance
from test_cli_ground import CONFIG, World
from test_db_care import fill, path_of

from jobs.errors import Busy, Unavailable
from jobs.store import soundness, vacuum
from jobs.store.tables import instances, runs

LONG = 200_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Eight runs with long answers, of which one is to be kept, and no process at work."""
    made = World(tmp_path, config=CONFIG + "limits: {keep_runs: 1}\n")
    with made.ledger() as connection:
        fill(connection)
        connection.execute(update(runs).values(output="a" * LONG))
        connection.execute(update(instances).values(stopped_at=instances.c.heartbeat_at))
    return made


def test_what_pruning_leaves_unused_is_told_and_then_given_back(world: World) -> None:
    path = path_of(world)
    pruned = world.json("db-prune", "db", "prune")
    large = path.stat().st_size
    told = world.run("db", "prune").out

    done = world.json("db-prune", "db", "prune", "--vacuum")

    assert (pruned["runs"], pruned["vacuumed"], pruned["unused"] > 6 * LONG) == (7, None, True)
    assert "MB of the file are unused" in told
    assert "db prune --vacuum" in told
    assert done["vacuumed"] == {"before": large, "after": path.stat().st_size}
    assert (path.stat().st_size < large - 6 * LONG, done["unused"]) == (True, 0)
    assert soundness.of_file(path).faults == ()
    with world.ledger() as connection:
        assert connection.execute(text("SELECT length(output) FROM runs")).scalars().all() == [LONG]
    assert "unused" not in world.run("db", "prune").out


def test_it_is_refused_while_a_process_works_on_the_database_and_nothing_is_removed(world: World) -> None:
    """A daemon, wherever its configuration lies; it would wait for minutes to write."""
    with world.ledger() as connection:
        make_instance(connection)

    refused = world.run("db", "prune", "--vacuum")

    assert refused.code == 75
    assert "a daemon uses the database" in refused.err
    assert "promptd stop" in refused.err
    assert world.json("db-prune", "db", "prune", "--dry-run")["runs"] == 7


def test_it_is_refused_while_somebody_reads_or_writes_the_file(world: World) -> None:
    """Of whichever program: SQLite itself says so."""
    path = path_of(world)
    for begin in ("BEGIN IMMEDIATE", "BEGIN"):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(begin)
            other.execute("SELECT count(*) FROM runs").fetchone()
            with pytest.raises(Busy, match="stop the daemon"):
                vacuum.vacuum(path, patience=0.02)
    assert vacuum.vacuum(path).after > 0


def test_what_cannot_be_vacuumed_says_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "promptd.db"
    path.write_bytes(b"no database" * 1_000)

    with pytest.raises(Unavailable, match="twice 1 MB beside the file"):
        vacuum.vacuum(path)


def test_a_dry_run_and_a_server_have_nothing_to_vacuum(world: World) -> None:
    dry = world.run("db", "prune", "--dry-run", "--vacuum")
    world.file.write_text(CONFIG + "database: postgresql+psycopg://promptd@127.0.0.1:1/promptd\n")
    served = world.run("db", "prune", "--vacuum")

    assert (dry.code, served.code) == (2, 2)
    assert "leave one of" in dry.err
    assert "vacuums by itself" in served.err
