"""When jobs last succeeded and started, as figures show it: whoever ran them, and read once."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, insert, select, update
from support.ledger import MINUTE, NOW, make_database

from jobs.store import jobs as job_verbs
from jobs.store import ledger
from jobs.store.last_runs import Recollection
from jobs.store.tables import runs

JOBS = ("digest", "news", "weekly")
Times = dict[str, tuple[datetime | None, datetime | None]]


def add(connection: Connection, job: str, state: str, minute: int) -> int:
    """Write a run that was claimed in that minute, and began and ended in it as its state wants."""
    at = NOW + minute * MINUTE
    row = {"job": job, "scheduled_for": at, "trigger": "manual", "created_at": at, **_in(state, at)}
    return int(connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one())


def _in(state: str, at: datetime) -> dict[str, object]:
    """Return what a row of a state holds."""
    began = {"tries": 1, "started_at": at} if state in ("running", "failed", "succeeded") else {}
    ended = {} if state in ("running", "queued") else {"finished_at": at}
    answer = {"served_provider": "zai", "output": "a"} if state == "succeeded" else {}
    return {"state": state, **began, **ended, **answer}


def change(connection: Connection, run_id: int, state: str, minute: int) -> None:
    """Let a run go on to another state."""
    values = _in(state, NOW + minute * MINUTE)
    connection.execute(update(runs).where(runs.c.id == run_id).values(values))


def told(connection: Connection) -> Times:
    """Return of each job, by reading every run, when its newest success ended and its newest start was."""
    found: Times = {}
    for row in connection.execute(select(runs).order_by(runs.c.id)):
        success, start = found.get(row.job, (None, None))
        success = row.finished_at if row.state == "succeeded" else success
        found[row.job] = (success, row.started_at or start)
    return found


def seen(recollection: Recollection, connection: Connection) -> Times:
    return {job: (last.success_at, last.start_at) for job, last in recollection.look(connection).items()}


def test_what_is_remembered_is_what_every_row_together_says(db: Connection) -> None:
    """Runs end in any order, long after newer ones, and in whichever process: only rows tell of them."""
    chance = random.Random(5)
    job_verbs.see(db, dict.fromkeys(JOBS), now=NOW)
    for minute in range(20):
        add(db, chance.choice(JOBS), chance.choice(("failed", "succeeded", "queued")), minute)
    recollection, opened, looks = Recollection(), [], 0
    for minute in range(20, 170):
        if chance.random() < 0.5:
            opened.append(add(db, chance.choice(JOBS), "queued", minute))
        elif opened:
            run_id = opened.pop(chance.randrange(len(opened)))
            state = chance.choice(("running", "failed", "succeeded", "cancelled"))
            change(db, run_id, state, minute)
            opened += [run_id] if state == "running" else []
        if chance.random() < 0.3:
            assert seen(recollection, db) == told(db)
            looks += 1

    assert looks > 20
    assert seen(Recollection(), db) == told(db)


def test_after_a_long_time_without_a_look_the_same_is_seen(db: Connection) -> None:
    """Nobody scraped while thousands of runs came: they are not read one by one."""
    job_verbs.see(db, dict.fromkeys(JOBS), now=NOW)
    recollection = Recollection()
    waiting, first = add(db, "news", "queued", 1), add(db, "digest", "succeeded", 2)
    assert seen(recollection, db) == told(db)

    change(db, waiting, "succeeded", 3)
    add(db, "weekly", "queued", 4)
    newest = add(db, "digest", "failed", 5)
    db.execute(update(runs).where(runs.c.id == newest).values(id=first + 100_000))

    assert seen(recollection, db) == told(db)
    change(db, first + 1, "succeeded", 6)
    assert seen(recollection, db) == told(db)


def test_what_was_removed_meanwhile_is_not_asked_after(db: Connection) -> None:
    """A job's newest success is told after its row has gone, and ids go on."""
    recollection = Recollection()
    job_verbs.see(db, {"digest": None}, now=NOW)
    add(db, "digest", "succeeded", 1)
    opened = add(db, "digest", "queued", 2)
    recollection.look(db)

    db.execute(runs.delete())
    assert seen(recollection, db)["digest"][0] == NOW + MINUTE

    assert add(db, "digest", "succeeded", 3) > opened
    assert seen(recollection, db)["digest"][0] == NOW + 3 * MINUTE


@contextmanager
def steps_of(connection: Connection) -> Iterator[list[int]]:
    """Count what SQLite's machine does meanwhile, by tens of instructions."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    counted: list[int] = []
    raw.set_progress_handler(lambda: counted.append(1), 10)
    yield counted
    raw.set_progress_handler(None, 0)


def test_only_the_first_look_passes_by_all_that_failed(tmp_path: Path) -> None:
    """A scrape of jobs that have failed for weeks costs what one of healthy jobs does."""
    engine = make_database(tmp_path / "promptd.db")
    with engine.begin() as connection:
        job_verbs.see(connection, dict.fromkeys(JOBS), now=NOW)
        for minute in range(900):
            add(connection, JOBS[minute % 3], "failed", minute)
        recollection, looks = Recollection(), []
        for minute in (901, 902):
            with steps_of(connection) as steps:
                recollection.look(connection)
            looks.append(len(steps))
            add(connection, "news", "failed", minute)
        with steps_of(connection) as steps:
            assert len(ledger.last_run_of_each(connection)) == 3
        listed = len(steps)
    engine.dispose()

    assert looks[0] > 20 * looks[1]
    assert looks[0] > 20 * listed
