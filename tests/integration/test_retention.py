"""A daemon forgets by itself what need not be kept: in portions, at quiet times, not what is asked for."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, insert, select, update
from support.hang_guard import wait_ends
from support.ledger import DAY, HOUR, NOW, SECOND
from test_cli_ground import CONFIG, World
from test_db_care import delivery_of, fill, left

from jobs.secret import Redactor
from jobs.store import prune, soundness
from jobs.store.engine import LONGEST_LOG
from jobs.store.prune import Keep
from jobs.store.tables import alerts, deliveries, runs
from scheduler.app import App, open_app
from scheduler.config.settings import Limits
from scheduler.retention import TOO_LONG_A_LOG, Removed, Retention

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Eight runs of a digest, of which three are to be kept."""
    made = World(tmp_path, config=CONFIG + "limits: {keep_runs: 3}\n")
    with made.ledger() as connection:
        fill(connection)
    return made


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[App]:
    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=Redactor()) as app:
        yield app


async def until_left(app: App, number: int) -> None:
    """Wait until so many runs are left."""
    async with wait_ends():
        while len(await app.store.read(left)) != number:
            await asyncio.sleep(0.02)


async def until_said(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """Wait until the log says something."""
    async with wait_ends():
        while what not in caplog.text:
            await asyncio.sleep(0.02)


async def test_a_round_removes_what_the_limits_do_not_keep(world: World) -> None:
    async with opened(world) as app:
        retention = Retention(app)
        assert await retention.prune() == Removed(runs=5, jobs=1)
        assert await retention.prune() == Removed()
        assert len(await app.store.read(left)) == 3


async def test_a_watch_prunes_soon_after_a_start_and_again_when_the_limits_change(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Told in one line each; nothing in between, since a day has not gone by."""
    caplog.set_level(logging.INFO, "scheduler.retention")
    async with opened(world) as app:
        retention = Retention(app, first_after=0, looked_every=0.05)
        watch = asyncio.create_task(retention.watch())
        await until_said(caplog, "removed 5 runs")
        await app.store.write(more, 4)
        await asyncio.sleep(0.3)
        assert len(await app.store.read(left)) == 7

        retention.take(replace(app, settings=replace(app.settings, limits=Limits(keep_runs=1))))
        async with wait_ends():
            while len(caplog.records) < 2:
                await asyncio.sleep(0.02)
        assert len(await app.store.read(left)) == 2
        watch.cancel()

    assert [record.getMessage().partition(" of")[0] for record in caplog.records] == [
        "removed 5 runs",
        "removed 5 runs",
    ]


async def test_limits_that_change_while_it_prunes_are_kept_too(world: World) -> None:
    """What was pruned by those of before is pruned again at the next look, and not tomorrow."""
    async with opened(world) as app:
        retention = Retention(app, first_after=0, looked_every=0.02)
        limits = [replace(app, settings=replace(app.settings, limits=Limits(keep_runs=1)))]

        def change(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("DELETE FROM runs") and limits:
                retention.take(limits.pop())

        event.listen(Engine, "before_cursor_execute", change)
        watch = asyncio.create_task(retention.watch())
        try:
            await until_left(app, 1)
        finally:
            event.remove(Engine, "before_cursor_execute", change)
            watch.cancel()


def more(connection: Connection, number: int) -> None:
    """Write so many cancelled runs of the digest."""
    row = {"job": "digest", "trigger": "manual", "state": "cancelled", "created_at": NOW, "finished_at": NOW}
    rows = [{**row, "scheduled_for": NOW + each * SECOND} for each in range(number)]
    connection.execute(insert(runs), rows)


async def test_it_waits_while_something_runs(world: World) -> None:
    """Nobody's answer waits for a row that is to be removed."""
    with world.ledger() as connection:
        run = world.begin(connection)
    async with opened(world) as app:
        watch = asyncio.create_task(Retention(app, first_after=0).watch())
        await asyncio.sleep(0.5)
        assert len(await app.store.read(left)) == 9

        await app.store.write(end, run.id)
        await until_left(app, 3)
        watch.cancel()


def end(connection: Connection, run_id: int) -> None:
    ended = {"state": "cancelled", "finished_at": NOW + HOUR}
    connection.execute(update(runs).where(runs.c.id == run_id).values(ended))


async def test_others_write_between_two_portions(world: World) -> None:
    """A write that is asked for while thousands of rows are removed waits for one portion at most."""
    with world.ledger() as connection:
        more(connection, 3_000)
    seen = []
    async with opened(world) as app:
        pruning = asyncio.create_task(Retention(app).prune())
        while not pruning.done():
            seen.append(len(await app.store.write(left)))
            await asyncio.sleep(0.01)
        removed = await pruning

    assert removed.runs == 3_004
    steps = [before - after for before, after in pairwise(seen) if before != after]
    assert len(steps) > 5
    assert max(steps) <= 2 * prune.RUNS_A_PORTION


async def test_trouble_with_the_database_ends_a_round_and_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The next round comes."""
    path = Path(world.settings.database.removeprefix("sqlite:///"))
    async with opened(world) as app:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
            with pytest.raises(Exception, match="newer promptd"):
                await app.store.check_revision()
            watch = asyncio.create_task(Retention(app, first_after=0, looked_every=0.05).watch())
            await until_said(caplog, "newer promptd")
            other.execute("UPDATE alembic_version SET version_num = '0004'")
        await app.store.check_revision()
        await until_left(app, 3)
        watch.cancel()


def alert(connection: Connection, number: int, *, resolved: bool = True) -> int:
    row = {"key": f"job_failing:{number}", "kind": "job_failing", "message": "m", "opened_at": NOW,
           "told_at": NOW, "resolved_at": NOW + number * HOUR if resolved else None}  # fmt: skip
    return int(connection.execute(insert(alerts).values(row).returning(alerts.c.id)).scalar_one())


def notice(connection: Connection, alert_id: int, **values: object) -> None:
    words = {"alert_id": alert_id, "notice": "opened", "subject": "s", "body": "b"}
    connection.execute(insert(deliveries).values(delivery_of(None, **words, **values)))


def test_alerts_that_are_over_go_with_their_notices_and_others_stay(db: Connection) -> None:
    """What lasts, what is to be delivered, what was over a short while ago, and the newest ones."""
    ids = [alert(db, number) for number in range(4)]
    lasting, untold = alert(db, 4, resolved=False), alert(db, 5)
    for each in (*ids, lasting):
        notice(db, each, state="delivered", finished_at=NOW - DAY)
    notice(db, untold, state="pending")

    gone = 0
    while portion := prune.prune_alerts(db, Keep(1, all_since=NOW + 2 * HOUR), at_most=2):
        gone += portion

    assert list(db.execute(select(alerts.c.id).order_by(alerts.c.id)).scalars()) == [
        *ids[2:],
        lasting,
        untold,
    ]
    told = db.execute(select(deliveries.c.alert_id, deliveries.c.state)).all()
    assert sorted(map(tuple, told)) == [(lasting, "delivered"), (untold, "pending")]
    assert gone == 6
    while prune.prune_alerts(db, Keep(0)):
        pass
    assert list(db.execute(select(alerts.c.id).order_by(alerts.c.id)).scalars()) == [lasting, untold]


def test_deliveries_go_with_their_runs(db: Connection) -> None:
    """Once they are settled: until then the run stays."""
    ids = fill(db)
    for run_id, state in zip(ids, ("delivered", "failed", "pending"), strict=False):
        db.execute(insert(deliveries).values(delivery_of(run_id, state=state)))

    assert prune.prune(db, "digest", Keep(3)).runs == 4

    assert left(db) == [ids[2], *ids[5:]]
    assert list(db.execute(select(deliveries.c.state)).scalars()) == ["pending"]


def grow(connection: Connection, size: int) -> None:
    words = {"alert_id": alert(connection, 1), "notice": "opened", "subject": "s", "body": "b" * size}
    connection.execute(insert(deliveries).values(delivery_of(None, **words)))
    connection.execute(deliveries.delete())
    connection.execute(alerts.delete())


async def test_the_log_that_grew_while_somebody_read_for_long_is_short_again_afterwards(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """And who reads on and on is told of, once."""
    path = Path(world.settings.database.removeprefix("sqlite:///"))
    async with opened(world) as app:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM runs").fetchone()
            await app.store.write(grow, TOO_LONG_A_LOG)
            watch = asyncio.create_task(Retention(app, first_after=0, looked_every=0.02).watch())
            await until_said(caplog, "the write-ahead log has")
            await asyncio.sleep(0.2)
            assert caplog.text.count("the write-ahead log has") == 1
        watch.cancel()
        for _ in range(3):
            await app.store.write(more, 1)
        assert 0 < soundness.log_size(path) <= LONGEST_LOG
