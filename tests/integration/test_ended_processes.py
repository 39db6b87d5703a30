"""Rows of processes that have ended go when nothing refers to them, and not before."""

import os
import socket
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, select, update
from support.ledger import DAY, HOUR, NOW
from test_cli_ground import CONFIG, World
from test_db_care import delivery_of, fill
from test_retention import opened

from jobs.store import instances as instance_verbs
from jobs.store import prune
from jobs.store.instances import process_start
from jobs.store.prune import Keep
from jobs.store.tables import deliveries, instances, runs
from scheduler.retention import Retention

pytestmark = pytest.mark.anyio
LONG_AFTER = NOW + 9 * DAY


def add(connection: Connection, *, stopped: datetime | None = NOW, **values: object) -> int:
    """Write a process that has stopped at `stopped`, or been heard of last at NOW; return its id."""
    who = {"kind": "command", "host": socket.gethostname(), "pid": 1, "pid_started": "earlier boot:1"}
    row = {**who, "version": "0", "started_at": NOW, "heartbeat_at": stopped or NOW, "stopped_at": stopped}
    query = insert(instances).values({**row, **values}).returning(instances.c.id)
    return int(connection.execute(query).scalar_one())


def left(connection: Connection) -> list[int]:
    return list(connection.execute(select(instances.c.id).order_by(instances.c.id)).scalars())


def prune_all(connection: Connection, keep: Keep) -> int:
    """Remove what is superfluous long after NOW; return how many went."""
    found = prune.ended_instances(connection, keep, now=LONG_AFTER)
    gone = 0
    while gone < len(found):
        gone += prune.prune_instances(connection, found[gone:])
    return gone


def test_processes_that_stopped_go_beyond_the_limits_but_the_newest_row(db: Connection) -> None:
    """SQLite would give its id again, and rows of others tell processes by it."""
    ids = [add(db, stopped=NOW + number * HOUR) for number in range(8)]

    assert prune_all(db, Keep(5)) == 3
    assert left(db) == ids[3:]
    assert prune_all(db, Keep(1_000, since=NOW + 5 * HOUR)) == 2
    assert left(db) == ids[5:]
    assert prune_all(db, Keep(0)) == 2
    assert left(db) == ids[7:]


def test_what_a_run_or_a_delivery_refers_to_stays(db: Connection) -> None:
    """Also when all else about it is old."""
    run_id = fill(db)[0]
    ran, sending, free, _newest = (add(db) for _ in range(4))
    db.execute(update(runs).where(runs.c.id == run_id).values(instance_id=ran))
    sent = delivery_of(run_id, sending_by=sending, sending_until=NOW)
    db.execute(insert(deliveries).values(sent))

    assert prune.ended_instances(db, Keep(0), now=LONG_AFTER) == [free]


def test_who_was_killed_goes_when_that_is_certain(db: Connection) -> None:
    """Not who lives, however silent, nor who may be suspended on another host, nor within a day."""
    killed = add(db, stopped=None)
    add(db, stopped=None, pid=os.getpid(), pid_started=process_start(os.getpid()))
    add(db, stopped=None, host="elsewhere")
    add(db, stopped=None, heartbeat_at=LONG_AFTER - HOUR)
    add(db)

    found = prune.ended_instances(db, Keep(0), now=LONG_AFTER)

    assert found == [killed]
    assert instance_verbs.killed(db, silent_since=NOW, now=LONG_AFTER) == []


def test_a_portion_is_smaller_the_more_runs_have_to_be_asked(db: Connection) -> None:
    """The writer is not held up by thousands of looks through millions of runs."""
    ids = [add(db) for _ in range(5)]
    first = fill(db, hours=1)[0]
    what = {"job": "digest", "scheduled_for": NOW, "trigger": "manual", "state": "cancelled"}
    far = {**what, "created_at": NOW, "finished_at": NOW}
    db.execute(insert(runs).values({**far, "id": first + 40_000}))
    assert prune.prune_instances(db, ids) == 2

    db.execute(insert(runs).values({**far, "id": first + 400_000}))
    assert prune.prune_instances(db, ids[2:]) == 1
    assert left(db)[0] == ids[3]


def test_nothing_to_remove_reads_no_runs(db: Connection) -> None:
    """A round of every day looks at the processes first."""
    add(db)
    asked: list[str] = []
    event.listen(db, "before_cursor_execute", lambda _c, _cursor, statement, *_: asked.append(str(statement)))

    assert prune.ended_instances(db, Keep(1_000), now=LONG_AFTER) == []

    assert asked
    assert not any("runs" in statement for statement in asked)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Six commands that have ended, of which one is to be kept, and a newer one."""
    made = World(tmp_path, config=CONFIG + "limits: {keep_runs: 1}\n")
    with made.ledger() as connection:
        for hour in range(6):
            add(connection, stopped=NOW + hour * HOUR)
    return made


async def test_a_daemon_removes_them_by_itself(world: World) -> None:
    async with opened(world) as app:
        assert (await Retention(app).prune()).instances == 5
        assert (await Retention(app).prune()).instances == 0
        assert len(await app.store.read(left)) == 2


def test_prune_counts_them_and_then_removes_them(world: World) -> None:
    assert world.json("db-prune", "db", "prune", "--dry-run")["instances"] == 5
    assert world.json("db-prune", "db", "prune")["instances"] == 5
    with world.ledger() as connection:
        assert len(left(connection)) == 1
    assert "0 ended processes" in world.run("db", "prune").out
