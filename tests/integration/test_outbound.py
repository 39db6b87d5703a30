"""What a daemon does beside its runs: a part that breaks is begun again, and reloads reach all of them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from support.hang_guard import LONGEST
from support.hostile import late, said
from support.http_peer import HttpPeer, answer
from test_cli_ground import World

from jobs import clock
from jobs.delivery.room import HANGS_AFTER
from jobs.delivery_state import Deliver
from jobs.events import RunRecovered
from jobs.run import Consequences, Outcome, Served
from jobs.secret import Redactor
from jobs.store import instances, runs
from jobs.store.tables import deliveries as table
from jobs.store.tables import runs as run_table
from scheduler.app import App, open_app, reconfigured
from scheduler.config.loader import load
from scheduler.outbound import Outbound, watched_of, ways_of

pytestmark = pytest.mark.anyio

CONFIG = """
state_dir: state
model: {provider: custom, name: house, base_url: "http://localhost:1/v1", model: m, api_key: no-key-required}
delivery: {inbox: {file: "out/{run_id}.md"}}
alerts: {to: inbox}
jobs:
  - {name: digest, schedule: null, prompt: now, deliver: inbox, pause_after_failures: 4}
  - {name: off, schedule: null, prompt: never, enabled: false}
"""
ANSWER = Outcome.succeeded("All is well.", served=Served("custom:house", "m", "key"))
PATIENCE = LONGEST / 2  # what hangs is left alone for longer
NEVER = 3600.0
LATER = said(answer(503, "retry-after: 3600"))
HAS_FAILED = select(table.c.id).where(table.c.failures > 0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, config=CONFIG)


@asynccontextmanager
async def at_work(world: World) -> AsyncIterator[tuple[App, Outbound]]:
    """Give what goes out of a daemon, at work until the block ends: it looks when it is told to."""
    async with open_app(world.settings, environ=world.environ, kind="daemon", redactor=Redactor()) as app:
        outbound = Outbound(app, begun_again_after=0.1, looks_every=NEVER)
        outbound.start()
        try:
            yield app, outbound
        finally:
            await outbound.drain(PATIENCE)
            await outbound.stop()


def end(connection: Connection, world: World, to: str = "inbox") -> Any:
    """End a run that is to be delivered, and the process in which it was."""
    run, now = world.begin(connection), clock.utcnow()
    consequences = Consequences(deliver=(Deliver(to),))
    runs.finish(connection, run, ANSWER, now=now, consequences=consequences)
    (worker,) = connection.execute(select(run_table.c.instance_id).where(run_table.c.id == run.id)).scalars()
    instances.stop(connection, worker, now=now)
    return run


async def states(app: App, *wanted: str) -> list[Any]:
    """Wait until the deliveries stand so, and return them."""
    query = select(table).order_by(table.c.id)
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await app.store.read(lambda connection: connection.execute(query).all())
            if [row.state for row in found] == list(wanted):
                return list(found)
            await asyncio.sleep(0.02)


async def test_a_part_that_breaks_is_told_of_and_begun_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A table that somebody has taken away stands for whatever nobody has thought of."""

    def rename(connection: Connection, name: str, to: str) -> None:
        connection.execute(text(f"ALTER TABLE {name} RENAME TO {to}"))

    async with at_work(world) as (app, outbound):
        await app.store.write(rename, "deliveries", "taken_away")
        outbound.wake()
        async with asyncio.timeout(PATIENCE):
            while "deliveries have broken" not in caplog.text:
                await asyncio.sleep(0.02)
        await app.store.write(rename, "taken_away", "deliveries")
        await app.store.write(end, world)
        outbound.wake()
        await states(app, "delivered")

    told = next(record for record in caplog.records if "have broken" in record.message)
    assert told.levelno == logging.ERROR


async def test_a_reload_reaches_deliveries_and_what_is_watched(world: World) -> None:
    async with at_work(world) as (app, outbound):
        world.file.write_text(CONFIG.replace("inbox", "mailbox"))
        settings = load(world.file, environ=world.environ, now=world.now)
        new = await reconfigured(app, settings, world.environ)
        outbound.take(new, ways_of(new))
        await app.store.write(end, world, "mailbox")
        await app.store.write(end, world, "inbox")
        outbound.worked("digest")
        await states(app, "delivered", "failed")


async def test_what_a_job_that_is_removed_leaves_is_named_and_sent_like_any_other(world: World) -> None:
    """A job without a timetable is told in the zone of all; and it is sent as soon as any other's."""
    zoned = CONFIG.replace("{run_id}", "{scheduled_for:%z}").replace("name: digest", "name: another")
    world.file.write_text(f"timezone: Asia/Tokyo{zoned}")
    world.settings = load(world.file, environ=world.environ, now=world.now)
    async with at_work(world) as (app, outbound):
        await states(app)
        await app.store.write(end, world)
        outbound.worked("digest")
        await states(app, "delivered")

    assert [each.name for each in (world.home / "state" / "out").iterdir()] == ["+0900.md"]


async def test_a_reload_forgets_no_disk_that_hangs(world: World) -> None:
    """Else every reload would let another thread hang there."""
    async with at_work(world) as (app, _outbound):
        again = await reconfigured(app, world.settings, world.environ)

        assert again.tools.disks is app.tools.disks


async def test_somebody_who_asks_is_not_made_to_wait_for_a_target_that_has_hung(world: World) -> None:
    """What waits for the target is left alone for a minute else."""
    async with HttpPeer(late(2 * HANGS_AFTER, LATER), said(answer(200))) as peer:
        hook = f'hook: {{webhook: "{peer.url()}", timeout: 1m}}'
        world.file.write_text(CONFIG.replace("delivery: {", f"delivery: {{{hook}, "))
        world.settings = load(world.file, environ=world.environ, now=world.now)
        async with at_work(world) as (app, outbound):
            await app.store.write(end, world, "hook")
            await app.store.write(end, world, "hook")
            outbound.worked("digest")
            async with asyncio.timeout(PATIENCE):
                while not await app.store.read(lambda db: db.execute(HAS_FAILED).all()):
                    await asyncio.sleep(0.02)
            outbound.wake()
            await states(app, "pending", "delivered")


async def test_the_end_of_a_dead_process_s_run_is_sent_when_it_is_told(world: World) -> None:
    """Sooner than at the next look, so that nobody waits for a failure."""
    async with at_work(world) as (app, _outbound):
        await states(app)
        run = await app.store.write(end, world)
        app.events.emit(RunRecovered(run, Outcome.abandoned()))
        await states(app, "delivered")


async def test_alerts_are_about_the_jobs_that_fall_due_and_those_whom_a_chain_names(world: World) -> None:
    async with at_work(world) as (app, _outbound):
        watched = watched_of(app)

    assert watched.policy.to == ("inbox",)
    assert watched.jobs == {"digest": 4}
    assert [each.provider for each in watched.credentials] == ["custom:house"]


async def test_a_reload_after_a_secret_was_mended_sends_what_waits(world: World) -> None:
    """The file has another text, at the same place: its next try would be in an hour."""
    secret = world.file.parent / "where"
    async with HttpPeer(LATER) as old, HttpPeer(said(answer(200))) as new:
        secret.write_text(old.url())
        world.file.write_text(
            CONFIG.replace("delivery: {", f'delivery: {{hook: {{webhook: "file:{secret}"}}, ')
        )
        world.settings = load(world.file, environ=world.environ, now=world.now)
        async with at_work(world) as (app, outbound):
            await app.store.write(end, world, "hook")
            outbound.worked("digest")
            async with asyncio.timeout(PATIENCE):
                while not await app.store.read(lambda db: db.execute(HAS_FAILED).all()):
                    await asyncio.sleep(0.02)
            secret.write_text(new.url())
            again = await reconfigured(app, world.settings, world.environ)
            outbound.take(again, ways_of(again))
            await states(app, "delivered")
