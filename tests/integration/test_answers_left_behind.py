"""What a process leaves that dies before it has judged its answer, and what a living one is to send."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from support.hang_guard import wait_ends
from test_cli_ground import World
from test_outbound import ANSWER, CONFIG, at_work, states

from jobs import clock
from jobs.delivery_state import Deliver
from jobs.events import Event, Events, RunRecovered
from jobs.run import ClaimedRun, Consequences, PaidAnswer, Served
from jobs.store import instances, runs
from jobs.store.tables import deliveries
from jobs.store.tables import instances as table
from jobs.store.tables import runs as run_table
from scheduler.daemon import Daemon, run_daemon

pytestmark = pytest.mark.anyio

QUIET = CONFIG.replace("deliver: inbox,", "deliver: inbox, silent_when: \"output == 'nothing'\",") + (
    "server: {listen: 'off'}\n"
)


def answered(connection: Connection, world: World, text: str) -> ClaimedRun:
    """Leave a run as a process does that dies with the answer in its row."""
    run = world.begin(connection)
    served = Served("custom:house", "m", "key")
    paid = PaidAnswer(run.id, run.tries, text, truncated=False, served=served, fallback=False)
    runs.keep_answer(connection, paid)
    owner = connection.execute(select(run_table.c.instance_id).where(run_table.c.id == run.id)).scalar_one()
    instances.stop(connection, owner, now=clock.utcnow())
    return run


async def test_an_answer_that_nobody_has_judged_is_kept_quiet_if_its_job_wants_that(tmp_path: Path) -> None:
    world = World(tmp_path, config=QUIET)
    with world.ledger() as connection:
        quiet, loud = (answered(connection, world, text) for text in ("nothing", "the disk is full"))
    found: list[Event] = []

    def attend(daemon: Daemon, events: Events) -> None:
        def hear(event: Event) -> None:
            found.extend([event] if isinstance(event, RunRecovered) else [])
            if len(found) == 2:
                daemon.stop()

        events.listen(hear)

    async with wait_ends():
        await run_daemon(world.settings, environ=world.environ, attend=attend)

    with world.ledger() as connection:
        ended = connection.execute(select(run_table.c.state, run_table.c.silent)).all()
        told = connection.execute(select(deliveries.c.run_id)).scalars().all()
    assert [tuple(row) for row in ended] == [("succeeded", True), ("succeeded", False)]
    assert told == [loud.id] != [quiet.id]


async def test_what_a_run_by_hand_is_still_to_send_is_its_own_until_it_ends(tmp_path: Path) -> None:
    """It may know targets that no daemon knows."""
    world = World(tmp_path, config=CONFIG)
    async with at_work(world) as (app, outbound):
        await app.store.write(ended, world, "elsewhere")
        for _ in range(2):
            await app.store.write(ended, world, "inbox")
            outbound.wake()
        await states(app, "pending", "delivered", "delivered")
        await app.store.write(stop_runs_by_hand)
        outbound.wake()
        dead, *_others = await states(app, "failed", "delivered", "delivered")

    assert "no delivery target named 'elsewhere'" in dead.last_error


def ended(connection: Connection, world: World, to: str) -> None:
    """End a run of a process that lives on."""
    deliver = Consequences(deliver=(Deliver(to),))
    runs.finish(connection, world.begin(connection), ANSWER, now=clock.utcnow(), consequences=deliver)


def stop_runs_by_hand(connection: Connection) -> None:
    for owner in connection.execute(select(table.c.id).where(table.c.kind == "command")).scalars().all():
        instances.stop(connection, owner, now=clock.utcnow())
