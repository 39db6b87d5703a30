"""Every earlier state of a database is upgraded and downgraded again; and a backup is put in its place."""

import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import Engine, MetaData, create_engine, insert, select, text
from support.ledger import DAY, NOW, make_instance, url_of
from support.postgres import Server
from test_cli_ground import World
from test_db_care import fill
from test_retention import alert, notice

from jobs.errors import Busy, Unavailable
from jobs.store import backup, instances, migrate, soundness
from jobs.store.revision import REVISION
from jobs.store.tables import deliveries

OLD_DATABASES = Path(__file__).parents[1] / "fixtures" / "databases"
EARLIER = sorted(OLD_DATABASES.glob("*.sql"))
LONG_AFTER = NOW + 365 * DAY
Rows = dict[str, list[dict[str, Any]]]
LOST = {"schedule_key"}
DELIVERY = (
    "INSERT INTO deliveries (run_id, target, state, idempotency_key, attempts, last_error, created_at,"
    " next_attempt_at, finished_at) SELECT id, 'ops', {state}, 'key-' || id, 2, 'no answer', '{now}',"
    " {next}, {end} FROM runs WHERE id % 3 = {rest}"
)


def filled(path: Path, kept: Path) -> str:
    """Make a database of what a program of old has written, and of deliveries as its tables take them."""
    path.touch(0o600)
    now = f"{NOW.replace(tzinfo=None)}.000000"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(kept.read_text("utf-8"))
        for rest, state, later, end in (
            (0, "'pending'", f"'{now}'", "NULL"),
            (1, "'pending'", "NULL", "NULL"),
            (2, "'failed'", "NULL", f"'{now}'"),
        ):
            connection.execute(DELIVERY.format(state=state, now=now, next=later, end=end, rest=rest))
        connection.commit()
    return url_of(path)


def rows_of(url: str) -> Rows:
    """Return every row of every table, by primary key, past every layer of ours."""
    engine = create_engine(url)
    try:
        found = MetaData()
        found.reflect(engine, only=lambda name, _: name != "alembic_version")
        with engine.connect() as connection:
            return {
                table.name: [
                    dict(row)
                    for row in connection.execute(
                        select(table).order_by(*table.primary_key.columns)
                    ).mappings()
                ]
                for table in found.sorted_tables
            }
    finally:
        engine.dispose()


@pytest.fixture(params=EARLIER, ids=lambda kept: kept.stem)
def kept(request: pytest.FixtureRequest) -> Path:
    """Return what the program of an earlier revision has written."""
    path: Path = request.param
    return path


@pytest.fixture
def earlier(kept: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a populated database of an earlier revision, of either kind."""
    source = filled(tmp_path / "promptd.db", kept)
    if kind == "sqlite":
        yield source
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create()
    migrate.upgrade(server.url(name), now=NOW)
    migrate.downgrade(server.url(name), kept.stem)
    copy_rows(source, server.url(name))
    yield server.url(name)
    server.drop(name)


def copy_rows(source: str, target: str) -> None:
    rows = rows_of(source)
    engine = create_engine(target)
    found = MetaData()
    found.reflect(engine, only=lambda name, _: name != "alembic_version")
    with engine.begin() as connection:
        for table in found.sorted_tables:
            if rows[table.name]:
                connection.execute(table.insert(), rows[table.name])
            if "id" in table.c:
                behind = f"SELECT setval('{table.name}_id_seq', (SELECT max(id) FROM {table.name}))"
                connection.execute(text(behind))
    engine.dispose()


def test_every_earlier_state_is_upgraded_and_downgraded_without_losing_a_row_or_a_value(
    earlier: str, kept: Path
) -> None:
    """Of what that state knew everything is as it was, and a second upgrade leads to the same rows again."""
    before = rows_of(earlier)

    migrate.upgrade(earlier, now=NOW)
    upgraded = rows_of(earlier)
    settled = with_times(before)
    done = migrate.go_back(earlier, to=kept.stem, now=LONG_AFTER)
    downgraded, next_id = rows_of(earlier), next_delivery(earlier)
    migrate.upgrade(earlier, now=NOW)

    assert sum(map(len, before.values())) >= 80
    for name, rows in settled.items():
        assert known_to(rows, upgraded[name]) == [{**row, **dict.fromkeys(LOST & row.keys())} for row in rows]
    assert (done.before, done.revision) == (REVISION, kept.stem)
    assert set(done.given_up) <= {"schedule_periods"}
    assert downgraded == settled
    assert next_id == before["deliveries"][-1]["id"] + 1
    assert {name: table for name, table in rows_of(earlier).items() if name != "schedule_periods"} == {
        name: table for name, table in upgraded.items() if name != "schedule_periods"
    }
    assert migrate.differences(earlier) == []


def with_times(rows: Rows) -> Rows:
    """Return rows as they are once every open delivery has a time; where it had none, its own is taken."""
    timed = [
        {**row, "next_attempt_at": row["next_attempt_at"] or row["created_at"]}
        if row["state"] == "pending"
        else row
        for row in rows["deliveries"]
    ]
    return {**rows, "deliveries": timed}


def known_to(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the new rows with the columns of the old ones; None for what there is no more."""
    return [{name: after.get(name) for name in before} for before, after in zip(old, new, strict=True)]


def next_delivery(url: str) -> int:
    """Return the id that the next delivery would get, without making one."""
    more = (
        "INSERT INTO deliveries (run_id, target, state, idempotency_key, created_at) "
        "SELECT max(run_id), 'more', 'pending', 'another', max(created_at) FROM deliveries RETURNING id"
    )
    engine = create_engine(url)
    with engine.connect() as connection:
        found = int(connection.execute(text(more)).scalar_one())
    engine.dispose()
    return found


def grown(world: World) -> None:
    """Write what only this revision knows beside what the one before knows too."""
    with world.ledger() as connection:
        ids = fill(connection)
        for run_id in ids[:2]:
            row = {"run_id": run_id, "target": "ops", "state": "delivered", "idempotency_key": f"k{run_id}",
                   "created_at": NOW, "finished_at": NOW, "attempts": 2, "failures": 1}  # fmt: skip
            connection.execute(insert(deliveries).values(row))
        notice(connection, alert(connection, 1), state="delivered")
        instances.stop(connection, 1, now=NOW)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A ledger with runs, deliveries, and an alert that was told."""
    made = World(tmp_path)
    grown(made)
    return made


def path_of(world: World) -> Path:
    return Path(world.settings.database.removeprefix("sqlite:///"))


def test_a_downgrade_says_what_is_given_up_and_keeps_it_in_a_backup(world: World) -> None:
    """The deliveries of runs stay; a notice of an alert has no place in the older tables."""
    before = rows_of(world.settings.database)

    done = world.json("db-downgrade", "db", "downgrade")

    assert (done["from"], done["revision"]) == (REVISION, "0003")
    assert done["given_up"] == {"alerts": 1, "deliveries": 1}
    after = rows_of(world.settings.database)
    assert [row["idempotency_key"] for row in after["deliveries"]] == ["k1", "k2"]
    assert after["runs"] == before["runs"]
    kept = Path(done["backup"])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert rows_of(url_of(kept)) == before
    assert world.run("run", "list").code == 69
    assert world.json("db-upgrade", "db", "upgrade")["from"] == "0003"


def test_a_downgrade_names_the_revisions_that_there_are(world: World) -> None:
    for wanted in ("9999", "base", REVISION, "0003'; --"):
        said = world.run("db", "downgrade", "--to", wanted)
        assert (said.code, "one of 0001, 0002, 0003" in said.err) == (2, True)
    assert world.run("db", "downgrade", "--to", "0001").out.count("0001") == 3
    assert "nothing is no revision before 0001" in world.run("db", "downgrade").err


def test_a_downgrade_needs_a_database_of_this_program(tmp_path: Path) -> None:
    world = World(tmp_path, migrated=False)
    assert world.run("db", "downgrade").code == 69

    migrated = World(tmp_path)
    with closing(sqlite3.connect(path_of(migrated), isolation_level=None)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer promptd" in migrated.run("db", "downgrade").err


def test_nothing_is_downgraded_while_somebody_works_on_it(world: World) -> None:
    """This process says of itself that it is a daemon."""
    with world.ledger() as connection:
        instance = make_instance(connection)

    said = world.run("db", "downgrade")

    assert (said.code, "a daemon uses the database" in said.err) == (75, True)
    assert migrate.current(world.settings.database) == REVISION
    assert list(world.settings.state_dir.glob("*.bak")) == []
    with world.ledger() as connection:
        instances.stop(connection, instance, now=NOW)
    assert world.run("db", "downgrade").code == 0


def test_nothing_is_downgraded_when_somebody_has_come_during_its_backup(world: World) -> None:
    """The disk is slow: a daemon starts while the copy reaches it."""
    url, real = world.settings.database, os.fsync

    def slow(number: int) -> None:
        with world.ledger() as connection:
            make_instance(connection)
        real(number)

    with mock.patch.object(os, "fsync", slow), pytest.raises(Busy, match="a daemon uses the database"):
        migrate.go_back(url, to=None, now=NOW)

    assert migrate.current(url) == REVISION


def test_on_a_server_a_downgrade_wants_to_hear_of_a_backup(shared: Engine, tmp_path: Path) -> None:
    url = shared.url.render_as_string(hide_password=False)
    world = World(tmp_path, config=f"database: {url}\nmodel: zai/glm-5.1\nstate_dir: state\n", migrated=False)

    for words, told in ((("downgrade",), "pg_dump"), (("restore", str(world.file)), "pg_restore")):
        said = world.run("db", *words)
        assert (said.code, told in said.err) == (2, True)


def test_go_back_works_on_a_server(postgres: Server) -> None:
    """Where the backup is the server's own business."""
    name = postgres.create()
    url = postgres.url(name)
    migrate.upgrade(url, now=NOW)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO alerts (key, kind, message, opened_at, told_at) VALUES"
                                " ('k', 'job_held', 'm', now(), now())"))  # fmt: skip
    engine.dispose()

    done = migrate.go_back(url, to="0002", now=NOW)

    assert (done.backup, done.given_up, migrate.current(url)) == (None, {"alerts": 1}, "0002")
    postgres.drop(name)


def test_a_backup_takes_the_databases_place_which_stays_beside_it(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert world.run("db", "backup", str(copy)).code == 0
    saved = rows_of(world.settings.database)
    with world.ledger() as connection:
        connection.execute(deliveries.delete())
    later = rows_of(world.settings.database)

    done = world.json("db-restore", "db", "restore", str(copy))

    path = path_of(world)
    assert rows_of(world.settings.database) == saved
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rows_of(url_of(Path(done["before"]))) == later
    assert (done["revision"], done["rows"]["runs"]) == (REVISION, 8)
    assert not path.with_name("promptd.db-wal").exists()
    assert soundness.of_file(path).faults == ()


def test_what_was_in_the_log_is_in_neither_place_twice(world: World, tmp_path: Path) -> None:
    """A process was killed: its log lies beside the database, and belongs to what is put aside."""
    copy, path = tmp_path / "copy.db", path_of(world)
    backup.back_up(path, copy)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("DELETE FROM deliveries")
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", tmp_path / f"killed.db{end}")
    killed = tmp_path / "killed.db"
    assert killed.with_name("killed.db-wal").stat().st_size > 0

    done = backup.restore(copy, killed, now=NOW)

    assert len(rows_of(url_of(killed))["deliveries"]) == 3
    assert done.before is not None
    assert rows_of(url_of(done.before))["deliveries"] == []


def test_a_backup_is_restored_where_nothing_or_rubbish_is(world: World, tmp_path: Path) -> None:
    """A new machine, and a disk that has lost some pages."""
    copy, path = tmp_path / "copy.db", path_of(world)
    assert world.run("db", "backup", str(copy)).code == 0
    path.unlink()
    assert world.json("db-restore", "db", "restore", str(copy))["before"] is None
    path.write_bytes(b"\xff" * 8192)
    path.with_name("promptd.db-wal").write_bytes(b"of the rubbish")

    done = world.json("db-restore", "db", "restore", str(copy))

    assert Path(done["before"]).read_bytes() == b"\xff" * 8192
    assert Path(f"{done['before']}-wal").read_bytes() == b"of the rubbish"
    assert not path.with_name("promptd.db-wal").exists()
    assert world.run("db", "check").code == 0


@pytest.mark.parametrize("fails", ["a name that is taken", "the last step"])
def test_what_cannot_be_put_in_its_place_leaves_all_as_it_was(
    world: World, tmp_path: Path, fails: str
) -> None:
    copy, path = tmp_path / "copy.db", path_of(world)
    backup.back_up(path, copy)
    path.write_bytes(b"\xff" * 8192)
    path.with_name("promptd.db-wal").write_bytes(b"of the rubbish")
    if fails == "a name that is taken":
        path.with_name(f"promptd.db.replaced.{NOW:%Y%m%dT%H%M%S}-wal").touch()
    beside = list(path.parent.glob("*.replaced*"))
    broken = OSError(errno.EIO, "Input/output error")

    with mock.patch.object(Path, "replace", side_effect=broken), pytest.raises(Unavailable, match="nothing"):
        backup.restore(copy, path, now=NOW)

    assert path.read_bytes() == b"\xff" * 8192
    assert list(path.parent.glob("*.replaced*")) == beside


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_restores_belongs_to_whom_the_directory_belongs(world: World, tmp_path: Path) -> None:
    copy, path = tmp_path / "copy.db", path_of(world)
    backup.back_up(path, copy)
    os.chown(path.parent, 4711, 4712)

    backup.restore(copy, path, now=NOW)

    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)


def test_an_earlier_revisions_backup_is_the_way_back_and_the_way_up_again(
    world: World, tmp_path: Path
) -> None:
    """What an upgrade has put beside the database."""
    old = tmp_path / "old.db"
    filled(old, EARLIER[0])

    said = world.run("db", "restore", str(old))

    assert "bring it to 0004" in said.out
    assert world.run("run", "list").code == 69
    assert world.run("db", "upgrade").code == 0
    assert world.run("run", "list").code == 0


def test_nothing_is_restored_while_somebody_has_the_database_open(world: World, tmp_path: Path) -> None:
    """In whatever program."""
    copy, path = tmp_path / "copy.db", path_of(world)
    assert world.run("db", "backup", str(copy)).code == 0
    before = path.stat().st_ino
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchone()

        said = world.run("db", "restore", str(copy))

    assert (said.code, "is in use" in said.err) == (75, True)
    assert path.stat().st_ino == before
    assert list(path.parent.glob("*.replaced*")) == []


def test_what_is_no_sound_backup_replaces_nothing(world: World, tmp_path: Path) -> None:
    path = path_of(world)
    text_file, newer, torn, wrong = (tmp_path / name for name in ("notes.txt", "newer", "torn", "wrong"))
    text_file.write_text("no database")
    for file in (newer, torn, wrong):
        backup.back_up(path, file)
    with closing(sqlite3.connect(newer, isolation_level=None)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with closing(sqlite3.connect(torn)) as raw:
        (page,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'").fetchone()
    with closing(sqlite3.connect(wrong, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_master SET sql = replace(sql, '(job, id)', '(id, job)')")
    with torn.open("r+b") as file_:
        file_.seek((page - 1) * 4096)
        file_.write(b"\xff" * 4096)
    before = path.stat().st_ino

    for file, code, told in (
        (text_file, 2, "is no backup of promptd"),
        (newer, 2, "newer promptd"),
        (path, 2, "the database itself"),
        (torn, 69, "nothing was replaced"),
        (wrong, 69, "is not sound"),
    ):
        said = world.run("db", "restore", str(file))
        assert (said.code, told in said.err) == (code, True), said
    assert path.stat().st_ino == before
    assert list(path.parent.glob("*.replaced*")) == []
    assert world.run("db", "check").code == 0
