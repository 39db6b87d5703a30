"""`promptd db check`, `backup` and `prune`: a database looked after while others go on writing."""

import sqlite3
import stat
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update
from support.claiming import HOURLY, claim
from support.ledger import HOUR, MINUTE, NOW, make_instance, send
from test_cli_ground import CONFIG, World

from jobs.attempt import Step
from jobs.budget import day_begins
from jobs.errors import ErrorClass, Unavailable
from jobs.mark import DEFAULT_SOURCE, NewMark
from jobs.providers.recovery import RECOVERY
from jobs.run import Bounds, Concurrency, Trigger
from jobs.store import backup as backups
from jobs.store import credentials, ledger, outputs, prune, replay, soundness
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Failure, settle_failed
from jobs.store.claims import NewRun
from jobs.store.engine import open_engine
from jobs.store.prune import Keep
from jobs.store.recovery import recover
from jobs.store.runs import to_be_cancelled
from jobs.store.tables import alerts, attempts, deliveries, jobs, marks, runs, schedule_periods
from scheduler.ledger_audit import audited


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A digest that has run every hour."""
    made = World(tmp_path, config=CONFIG + "limits: {keep_runs: 3}\n")
    with made.ledger() as connection:
        fill(connection)
    return made


def at(hours: float) -> datetime:
    return NOW + hours * HOUR


def fill(connection: Connection, *, hours: int = 8) -> list[int]:
    """Write runs of the job `digest`, one an hour, all of which have succeeded; return their ids."""
    instance = make_instance(connection)
    job_verbs.see(connection, {"digest": HOURLY}, now=NOW)
    ids = []
    for hour in range(1, hours + 1):
        (run,) = claim(connection, instance, NewRun("digest", at(hour), Trigger.SCHEDULE)).ours
        done = {
            "state": "succeeded", "served_provider": "zai", "served_model": "m", "served_credential": "key",
            "output": f"answer {hour}", "started_at": at(hour), "finished_at": at(hour), "tries": 1,
        }  # fmt: skip
        connection.execute(update(runs).where(runs.c.id == run.id).values(done))
        ids.append(run.id)
    return ids


def left(connection: Connection) -> list[int]:
    """Return the ids of the runs that are there."""
    return list(connection.execute(select(runs.c.id).order_by(runs.c.id)).scalars())


def prune_all(db: Connection, keep: Keep, job: str = "digest") -> int:
    """Prune a job in portions of two; return how many runs went."""
    gone = 0
    while portion := prune.prune(db, job, keep, at_most=2).runs:
        gone += portion
    return gone


def test_of_each_job_the_newest_runs_are_kept_and_the_audit_stays_true(db: Connection) -> None:
    """It begins where the rows do."""
    ids = fill(db)
    assert prune.names(db) == ["digest"]
    assert prune.count(db, "digest", Keep(3)) == 5

    assert prune_all(db, Keep(3)) == 5

    assert left(db) == ids[5:]
    assert job_verbs.states(db)["digest"].pruned_until == at(5)
    found = audited(db, since=None, now=NOW)
    assert (found.ok, found.instants, found.rows, found.unchecked) == (True, 3, 3, {})
    assert prune_all(db, Keep(3)) == 0


def test_what_ended_too_long_ago_goes_however_few_there_are(db: Connection) -> None:
    ids = fill(db)

    assert prune_all(db, Keep(1000, since=at(7))) == 6

    assert left(db) == ids[6:]


def test_what_ended_since_a_moment_stays_however_many_there_are(db: Connection) -> None:
    """The runs of a day whose tokens are counted."""
    ids = fill(db)

    assert prune_all(db, Keep(1, since=at(8), all_since=at(4))) == 3

    assert left(db) == ids[3:]


def test_an_audit_finds_what_is_lost_behind_the_horizon_only(db: Connection) -> None:
    """To prune is not to hide."""
    fill(db)
    prune_all(db, Keep(3))

    db.execute(runs.delete().where(runs.c.scheduled_for == at(7)))

    assert not audited(db, since=None, now=NOW).ok


def delivery_of(run_id: int | None, *, state: str = "pending", **values: object) -> dict[str, object]:
    """Return a row of a delivery that was made at NOW."""
    ended = None if state == "pending" else NOW
    row = {"run_id": run_id, "target": "ops", "state": state, "next_attempt_at": NOW, "created_at": NOW}
    return {**row, "finished_at": ended, "idempotency_key": uuid4().hex, **values}


def test_what_somebody_will_ask_for_stays(db: Connection) -> None:
    """An open run, its parent, the newest answer, what a hold makes up for, what is to be delivered."""
    ids = fill(db)
    opened, parent, held, told = ids[:4]
    db.execute(
        update(runs).where(runs.c.id == opened).values(state="queued", finished_at=None, parent_id=parent)
    )
    db.execute(update(runs).where(runs.c.id.in_(ids[5:])).values(state="failed"))
    db.execute(update(jobs).values(held_by=held))
    db.execute(insert(deliveries).values(delivery_of(told)))

    prune_all(db, Keep(0))

    assert left(db) == ids[:5]
    assert outputs.newest_outputs(db, ["digest"]) == {"digest": "answer 5"}


def test_attempts_go_with_their_runs_but_for_those_that_a_mark_names(db: Connection) -> None:
    """Such a one stays without its run, and goes when the mark has gone."""
    ids = fill(db)
    sent = [send(db) for _ in range(3)]
    for attempt, run_id in zip(sent, ids, strict=False):
        failure = Failure(ErrorClass.AUTH, "*/status-401", "no")
        settle_failed(db, attempt, failure, recovery=Step.STOP)
        db.execute(update(attempts).where(attempts.c.id == attempt.id).values(run_id=run_id))
    row = RECOVERY[ErrorClass.AUTH]
    assert row.scope is not None
    mark = NewMark(row.scope, ErrorClass.AUTH, row.ladder, stated=None, source=DEFAULT_SOURCE)
    credentials.mark(db, sent[1], mark, now=NOW)

    prune_all(db, Keep(3))

    found = db.execute(select(attempts.c.id, attempts.c.run_id)).all()
    assert [tuple(each) for each in found] == [(sent[1].id, None)]
    assert prune.prune_attempts(db, Keep(0)) == 0
    db.execute(marks.delete())
    assert prune.prune_attempts(db, Keep(0)) == 1


def test_attempts_outside_runs_are_kept_in_the_same_number(db: Connection) -> None:
    """Refreshes, checks and probes; or by age."""
    sent = [send(db, at=at(hour)) for hour in range(5)]

    assert prune.prune_attempts(db, Keep(3)) == 2
    assert prune.prune_attempts(db, Keep(3, since=at(3))) == 1

    assert list(db.execute(select(attempts.c.id)).scalars()) == [each.id for each in sent[3:]]
    assert prune.prune_attempts(db, Keep(0, all_since=at(4))) == 1


def test_periods_that_lie_wholly_before_the_horizon_go_too(db: Connection) -> None:
    """But not the newest one of a schedule that has ended."""
    fill(db, hours=4)
    job_verbs.pause(db, "digest", reason=None, now=at(4))
    job_verbs.resume(db, "digest", now=at(4))
    fill_more = claim(
        db, make_instance(db), NewRun("digest", at(5), Trigger.SCHEDULE), bounds=Bounds(Concurrency.ALLOW)
    )
    db.execute(
        update(runs).where(runs.c.id == fill_more.ours[0].id).values(state="cancelled", finished_at=NOW)
    )
    job_verbs.end_schedule(db, "digest", at=at(5))

    prune_all(db, Keep(0))

    assert [tuple(row) for row in db.execute(select(schedule_periods.c.since, schedule_periods.c.until))] == [
        (at(4), at(5))
    ]
    assert audited(db, since=None, now=NOW).ok


def test_removing_a_portion_reads_no_whole_table(world: World) -> None:
    """The database looks for whoever points to a run, and for what is open, by an index."""
    for column in ("parent_id = 1", "job = 'a' AND finished_at IS NULL"):
        with world.ledger() as connection:
            query = f"EXPLAIN QUERY PLAN SELECT 1 FROM runs WHERE {column}"
            said = connection.exec_driver_sql(query).all()
        assert [("ix_runs_parent" in row[3]) or ("ix_runs_open" in row[3]) for row in said] == [True]


def test_what_every_beat_and_every_claim_ask_reads_no_whole_table_of_runs(world: World) -> None:
    """A ledger of a million rows is looked at every five seconds."""
    with world.ledger() as connection:
        seen: list[tuple[str, object]] = []
        event.listen(
            connection,
            "before_cursor_execute",
            lambda _c, _cursor, statement, values, *_: seen.append((statement, values)),
        )
        instance = make_instance(connection)
        recover(connection, instance_id=instance, now=NOW)
        to_be_cancelled(connection, instance)
        ledger.open_runs(connection)
        replay.left_behind(connection, now=NOW)
        claim(connection, instance, NewRun("digest", at(99), Trigger.SCHEDULE))
        asked = [each for each in seen if each[0].startswith("SELECT") and "FROM runs" in each[0]]
        plans = [
            (statement, row[3])
            for statement, values in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]

    assert len(asked) >= 4
    assert [said for said in plans if said[1] == "SCAN runs"] == []


def outgrown(connection: Connection) -> None:
    """Write attempts in and outside of the oldest run, a dead letter of it, and alerts that were told."""
    (oldest, *_others), (inside, *_outside) = left(connection), [send(connection) for _ in range(6)]
    connection.execute(update(attempts).where(attempts.c.id == inside.id).values(run_id=oldest))
    connection.execute(insert(deliveries).values(delivery_of(oldest, state="failed")))
    connection.execute(insert(deliveries).values(delivery_of(oldest, state="delivered", target="inbox")))
    for number in range(8):
        row = {"key": str(number), "kind": "job_failing", "message": "m", "opened_at": NOW, "told_at": NOW}
        over = insert(alerts).values(**row, resolved_at=NOW).returning(alerts.c.id)
        words = {"alert_id": connection.execute(over).scalar_one(), "notice": "opened", "subject": "s"}
        connection.execute(insert(deliveries).values(delivery_of(None, state="failed", body="b", **words)))


def test_prune_says_what_it_would_remove_and_then_removes_it(world: World) -> None:
    with world.ledger() as connection:
        outgrown(connection)
    dry = world.json("db-prune", "db", "prune", "--dry-run")
    assert (dry["dry_run"], dry["keep_runs"], dry["keep_days"], dry["runs"]) == (True, 3, None, 5)
    with world.ledger() as connection:
        assert len(left(connection)) == 8

    done = world.json("db-prune", "db", "prune")

    assert done["jobs"] == [{"job": "digest", "runs": 5, "pruned_until": "2026-09-04T13:00:00Z"}]
    for counted, number in (("attempts", 3), ("dead_letters", 1), ("notices", 7)):
        assert (dry[counted], done[counted]) == (number, number), counted
    assert "0 runs removed" in world.run("db", "prune").out
    assert world.json("audit", "audit")["ok"]


def test_the_runs_of_a_day_whose_tokens_are_counted_are_not_removed(tmp_path: Path) -> None:
    """Else more could be used than `max_tokens_per_day` says."""
    bounded = CONFIG.replace("name: digest,", "name: digest, max_tokens_per_day: 9,")
    world = World(tmp_path, config=bounded + "limits: {keep_runs: 3}\n")
    with world.ledger() as connection:
        ids = fill(connection)
        # as today has begun, or the next one, should it begin before they are counted
        today = day_begins(datetime.now(UTC) + HOUR, world.settings.jobs["digest"].timezone)
        connection.execute(update(runs).where(runs.c.id.in_(ids[2:])).values(finished_at=today))

    assert world.json("db-prune", "db", "prune")["runs"] == 2


def test_a_sound_database_is_said_to_be(world: World) -> None:
    found = world.json("db-check", "db", "check")

    assert (found["ok"], found["faults"], found["revision"]) == (True, [], found["wanted"])
    assert found["size"] > 0
    assert "sound" in world.run("db", "check").out


def path_of(world: World) -> Path:
    return Path(world.settings.database.removeprefix("sqlite:///"))


def test_a_row_that_points_to_nothing_and_another_revision_are_faults(world: World) -> None:
    with closing(sqlite3.connect(path_of(world), isolation_level=None)) as raw:
        raw.execute("UPDATE runs SET parent_id = 999 WHERE id = 2")
        raw.execute("UPDATE alembic_version SET version_num = '0001'")

    found = world.json("db-check", "db", "check", code=1)

    assert found["faults"][0] == "foreign key: row 2 of runs points to no row of runs"
    assert "promptd db upgrade" in found["faults"][1]


@pytest.mark.parametrize("damage", ["the middle", "everything"])
def test_a_damaged_file_is_a_fault_and_no_bug(world: World, damage: str) -> None:
    """Pages overwritten, or no database at all."""
    path = path_of(world)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(0 if damage == "everything" else 8192)
        file.write(b"\xff" * 40_960)

    assert world.json("db-check", "db", "check", code=1)["faults"]


def test_where_there_is_no_database_there_is_nothing_to_look_after(tmp_path: Path) -> None:
    world = World(tmp_path, migrated=False)
    for words in (("check",), ("backup", str(tmp_path / "copy.db")), ("prune",)):
        assert world.run("db", *words).code == 69


def test_a_server_says_of_its_own_constraints_and_indexes(shared: Engine) -> None:
    with shared.connect() as connection:
        found = soundness.of_server(connection)

    assert (found.faults, found.size > 0) == ((), True)


def test_a_backup_is_private_verified_and_never_written_over(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    made = world.json("db-backup", "db", "backup", str(copy))
    refused = world.run("db", "backup", str(copy))

    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert made["rows"]["runs"] == 8
    assert (refused.code, "--force" in refused.err) == (2, True)
    assert world.run("db", "backup", str(copy), "--force").code == 0
    assert world.run("db", "backup", str(path_of(world)), "--force").code == 2
    assert soundness.of_file(copy).faults == ()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(("copy", ".copy"))] == [
        "copy.db"
    ]


def test_a_backup_is_one_moment_while_others_write(world: World, tmp_path: Path) -> None:
    """Of two rows that are always written together it has both or neither."""
    written, enough = threading.Event(), threading.Event()
    engine = open_engine(world.settings.database, writes=True)

    def write() -> None:
        number = 0
        while not enough.is_set():
            with engine.begin() as connection:
                for job in ("one", "two"):
                    row = {"job": job, "scheduled_for": NOW + number * MINUTE, "trigger": "manual",
                           "state": "cancelled", "created_at": NOW, "finished_at": NOW}  # fmt: skip
                    connection.execute(insert(runs).values(row))
            number += 1
            written.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(60)
        made = [backups.back_up(path_of(world), tmp_path / f"{number}.db") for number in range(8)]
    finally:
        enough.set()
        writer.join(60)
        engine.dispose()

    for each in made:
        with closing(sqlite3.connect(each.path)) as raw:
            both = raw.execute(
                "SELECT job, count(*) FROM runs WHERE trigger = 'manual' GROUP BY job"
            ).fetchall()
        assert len(both) == 2
        assert both[0][1] == both[1][1]
        assert each.rows["runs"] == 8 + 2 * both[0][1]


def test_a_backup_that_cannot_be_written_leaves_nothing(world: World, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        backups.back_up(path_of(world), tmp_path / "nowhere" / "copy.db")

    assert world.run("db", "backup", str(tmp_path / "nowhere" / "copy.db")).code == 69


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_backup_never_takes_the_place_of_a_part_of_the_database(world: World, end: str) -> None:
    place = world.settings.state_dir / f"promptd.db{end}"
    link = world.home / "link"
    link.symlink_to(place)
    for file in (place, link):
        said = world.run("db", "backup", str(file), "--force")
        assert said.code == 2
        assert "belongs to the database itself" in said.err
    assert world.run("db", "check").code == 0


def test_a_backup_takes_the_place_of_an_earlier_one_and_of_nothing_else(world: World) -> None:
    key, earlier = world.settings.state_dir / "secret.key", world.home / "earlier.db"
    before = key.read_bytes()
    refused = world.run("db", "backup", str(key), "--force")
    unnamed = world.run("db", "backup", "")
    assert (refused.code, unnamed.code) == (2, 2)
    assert "is no earlier backup" in refused.err
    assert "is a directory" in unnamed.err
    assert key.read_bytes() == before
    assert world.run("db", "backup", str(earlier)).code == 0
    assert world.run("db", "backup", str(earlier), "--force").code == 0
