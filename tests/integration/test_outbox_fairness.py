"""The outbox among targets that hang, change, or that nobody knows: what waits for them, and how long."""

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update
from support.hang_guard import wait_ends
from support.hostile import stalled
from support.http_peer import HttpPeer
from test_outbox import (
    ACCEPTS,
    BRIEFLY,
    HOUR,
    REFUSES,
    SECOND,
    TOLERANCE,
    Sender,
    hanging,
    hook,
    inbox,
    sending,
    ways_to,
)

from jobs import clock
from jobs.delivery.outbox import Ways
from jobs.delivery.room import AT_MOST, STRANGERS_AT_MOST
from jobs.events import DeliverySettled, Event
from jobs.store import deliveries
from jobs.store.tables import deliveries as table

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", ["sqlite"], indirect=True)]
MANY = AT_MOST + 10


async def test_a_target_that_answers_is_served_while_more_hang_than_there_are_places(
    database: str, tmp_path: Path
) -> None:
    names = [f"hook-{number}" for number in range(MANY)]
    async with (
        HttpPeer(stalled()) as peer,
        sending(
            database, *(hook(peer, each) for each in names), inbox(tmp_path), hangs_after=BRIEFLY
        ) as sender,
    ):
        await sender.finished("inbox")
        await sender.all_are("delivered")
        await sender.finished(*names)
        await sender.until(lambda _: len(peer.taken) == STRANGERS_AT_MOST)
        await sender.finished("inbox")
        await sender.until(lambda found: found[-1].state == "delivered")

    assert len(peer.taken) == STRANGERS_AT_MOST


async def test_a_target_that_has_hung_takes_no_place_of_those_who_answer(database: str) -> None:
    """It answered before; from then on it counts as a stranger, of whom fewer are sent to at once."""
    names = [f"hook-{number}" for number in range(STRANGERS_AT_MOST + 12)]
    taken: list[int] = []
    hangs = hanging(BRIEFLY)
    async with HttpPeer(*[ACCEPTS] * len(names), *[hangs] * len(names), hanging(0.5)) as peer:
        targets = [hook(peer, each) for each in names]
        async with sending(database, *targets, wait=HOUR, hangs_after=BRIEFLY) as sender:
            sender.listen(lambda _event: taken.append(len(peer.taken)))
            await sender.finished(*names)
            await sender.all_are(*["delivered"] * len(names))
            await sender.finished(*names)
            found = await sender.until(lambda found: all(row.failures for row in found[len(names) :]))
            again = [row.id for row in found[len(names) :]]
            await sender.store.write(deliveries.ask_again, again, now=clock.utcnow())
            sender.outbox.hasten()
            await sender.until(lambda _: len(taken) > 2 * len(names))

    first_to_end = taken[2 * len(names)]
    assert first_to_end - 2 * len(names) <= STRANGERS_AT_MOST


async def test_a_target_that_was_changed_is_not_known_to_answer(database: str) -> None:
    names = [f"hook-{number}" for number in range(STRANGERS_AT_MOST + 12)]
    taken: list[int] = []
    async with HttpPeer(ACCEPTS) as before, HttpPeer(stalled()) as after:
        targets = [hook(before, each) for each in names]
        async with sending(database, *targets, wait=HOUR, hangs_after=BRIEFLY) as sender:
            await sender.finished(*names)
            await sender.all_are(*["delivered"] * len(names))
            others = [hook(after, each, timeout=1) for each in names]
            sender.outbox.take(ways_to(sender.ways.tools, *others))
            sender.listen(lambda event: taken.append(len(after.taken)) if has_failed(event) else None)
            await sender.finished(*names)
            await sender.until(lambda _: bool(taken))

    assert taken[0] <= STRANGERS_AT_MOST


async def test_a_first_try_goes_before_those_that_have_failed_when_everybody_is_a_stranger(
    database: str, tmp_path: Path
) -> None:
    """A process that has just begun knows nobody; the tries of former ones say who may hang."""
    names = [f"hook-{number}" for number in range(MANY)]
    async with HttpPeer(stalled()) as peer:
        async with sending(database, watches=False) as former:
            await former.finished(*names, "inbox")
            await former.store.write(tried_once)
        targets = (*(hook(peer, each) for each in names), inbox(tmp_path))
        async with sending(database, *targets, hangs_after=BRIEFLY) as sender:
            await sender.until(lambda found: found[-1].state == "delivered")


async def test_a_target_that_hangs_now_and_then_is_not_left_alone_for_that(database: str) -> None:
    """What comes behind it would wait for that one's next try, and more would come meanwhile than is sent."""
    async with (
        HttpPeer(ACCEPTS, hanging(BRIEFLY), ACCEPTS) as peer,
        sending(database, hook(peer), wait=HOUR, hangs_after=BRIEFLY) as sender,
    ):
        await sender.finished("hook")
        await sender.all_are("delivered")
        await sender.finished("hook")
        await sender.finished("hook")
        await sender.all_are("delivered", "pending", "delivered")

    assert len(peer.taken) == 3


async def test_who_sees_a_failure_and_asks_for_the_next_is_not_overruled(database: str) -> None:
    """The failure is told first, and whoever hears of it may have mended the target at once."""
    async with (
        HttpPeer(hanging(BRIEFLY), ACCEPTS) as peer,
        sending(database, hook(peer), wait=HOUR, hangs_after=BRIEFLY) as sender,
    ):
        sender.listen(lambda _event: sender.outbox.hasten())
        await sender.finished("hook")
        await sender.finished("hook")
        await sender.all_are("pending", "delivered")

    assert len(peer.taken) == 2


def has_failed(event: Event) -> bool:
    return isinstance(event, DeliverySettled) and event.outcome != "delivered"


def tried_once(connection: Connection) -> None:
    """Let everything but the inbox's have been tried once, in vain."""
    these = update(table).where(table.c.target != "inbox")
    connection.execute(these.values(attempts=1, failures=1))


async def failed_once(sender: Sender) -> Any:
    (row,) = await sender.until(lambda found: found[0].failures == 1 and found[0].sending_by is None)
    return row


async def test_a_reload_with_another_address_hastens_what_waits_and_counts_its_tries_as_before(
    database: str,
) -> None:
    async with (
        HttpPeer(REFUSES) as old,
        HttpPeer(ACCEPTS) as new,
        sending(database, hook(old), wait=HOUR) as sender,
    ):
        await sender.finished("hook")
        before = await failed_once(sender)
        sender.outbox.take(ways_to(sender.ways.tools, hook(new)))
        (row,) = await sender.all_are("delivered")

    assert (row.attempts, row.failures) == (2, 1)
    assert [each.headers["idempotency-key"] for each in new.taken] == [before.idempotency_key]


class SlowZones(dict[str, tzinfo]):
    """Zones of jobs that are looked up as slowly as it takes to open a gate."""

    def __init__(self) -> None:
        self.asked, self.gate = threading.Event(), threading.Event()

    def get(self, key: object, default: object = None) -> Any:
        self.asked.set()
        assert self.gate.wait(TOLERANCE)
        return UTC


async def test_a_reload_while_what_is_sent_is_read_sends_it_to_the_new_target(database: str) -> None:
    zones = SlowZones()
    async with (
        HttpPeer(ACCEPTS) as old,
        HttpPeer(ACCEPTS) as new,
        sending(database, hook(old), wait=HOUR) as sender,
    ):
        sender.outbox.take(replace(sender.ways, zones=zones))
        await sender.finished("hook")
        assert await asyncio.to_thread(zones.asked.wait, TOLERANCE)
        sender.outbox.take(ways_to(sender.ways.tools, hook(new)))
        zones.gate.set()
        await sender.all_are("delivered")

    assert (len(old.taken), len(new.taken)) == (0, 1)


async def test_a_reload_hastens_once_and_not_at_every_look(database: str) -> None:
    async with (
        HttpPeer(REFUSES) as old,
        HttpPeer(REFUSES) as new,
        sending(database, hook(old), wait=HOUR) as sender,
    ):
        await sender.finished("hook")
        await failed_once(sender)
        sender.outbox.take(ways_to(sender.ways.tools, hook(new)))
        await sender.until(lambda found: found[0].failures == 2)
        await looked_again(sender)
        sender.outbox.take(ways_to(sender.ways.tools, hook(new)))
        await looked_again(sender)

    assert (len(old.taken), len(new.taken)) == (1, 1)


async def looked_again(sender: Sender) -> None:
    """Wait until the outbox has looked, and sent what it found: a target that nobody knows tells it."""
    number = len(await sender.rows())
    await sender.finished(f"nowhere-{number}")
    await sender.until(lambda found: found[-1].state == "failed")


async def test_another_secret_behind_the_same_reference_is_another_target(database: str) -> None:
    async with HttpPeer(REFUSES, ACCEPTS) as peer, sending(database, hook(peer), wait=HOUR) as sender:
        await sender.finished("hook")
        await failed_once(sender)
        ways = ways_to(sender.ways.tools, hook(peer))
        sender.outbox.take(Ways(ways.targets, ways.zones, ways.tools, {"hook": b"another"}))
        await sender.all_are("delivered")


async def test_what_waits_for_a_title_or_at_another_target_is_not_hastened(database: str) -> None:
    async with (
        HttpPeer(REFUSES) as peer,
        HttpPeer(ACCEPTS) as new,
        sending(database, hook(peer), hook(peer, "other"), wait=HOUR) as sender,
    ):
        await sender.finished("hook", "other")
        await sender.until(lambda found: [row.failures for row in found] == [1, 1])
        titled = await sender.finished("elsewhere")
        await sender.until(lambda found: found[2].state == "failed")
        await sender.store.write(seeks_title, titled)
        sender.outbox.take(ways_to(sender.ways.tools, hook(new), hook(peer, "other")))
        await sender.until(lambda found: found[0].state == "delivered")
        found = await sender.rows()

    assert [row.attempts for row in found] == [2, 1, 0]


def seeks_title(connection: Connection, run_id: int) -> None:
    """Have a run's delivery wait for its title, at a target that a reload changes."""
    mine = update(table).where(table.c.run_id == run_id)
    waits = clock.utcnow() + timedelta(seconds=60)
    fresh = {"state": "pending", "finished_at": None, "attempts": 0, "failures": 0}
    connection.execute(mine.values(target="hook", next_attempt_at=waits, **fresh))


async def test_a_target_that_has_hung_and_changes_as_that_is_told_is_not_left_alone(database: str) -> None:
    async with (
        HttpPeer(stalled()) as old,
        HttpPeer(ACCEPTS) as new,
        sending(database, hook(old, timeout=0.2), wait=HOUR, hangs_after=BRIEFLY) as sender,
    ):
        other = ways_to(sender.ways.tools, hook(new))
        sender.listen(lambda event: sender.outbox.take(other) if isinstance(event, DeliverySettled) else None)
        await sender.finished("hook")
        (row,) = await sender.all_are("delivered")

    assert (row.attempts, row.failures) == (2, 1)


async def test_a_target_that_none_of_two_daemons_knows_is_a_dead_letter_after_a_while(
    database: str, tmp_path: Path
) -> None:
    patience = SECOND / 2
    async with (
        sending(database, inbox(tmp_path), leaves_for=patience) as one,
        sending(database, inbox(tmp_path), leaves_for=patience) as two,
    ):
        await one.finished("hook")
        async with wait_ends():
            while (row := (await one.rows())[0]).state == "pending":
                one.outbox.wake()
                two.outbox.wake()
                await asyncio.sleep(0.1)
        await asyncio.gather(one.outbox.drain(TOLERANCE), two.outbox.drain(TOLERANCE))
        heard = [each for each in (*one.heard, *two.heard) if isinstance(each, DeliverySettled)]

    assert (row.state, row.attempts, row.failures) == ("failed", 1, 1)
    assert row.last_error.startswith("no delivery target named 'hook'")
    assert [each.outcome for each in heard] == ["failed"]


async def test_what_waits_for_a_target_that_hangs_at_another_daemon_is_left_to_that_one(
    database: str, tmp_path: Path
) -> None:
    """That one sends, or waits for its next try: it has not given up, however long what is behind waits."""
    async with (
        HttpPeer(stalled()) as peer,
        sending(database, hook(peer, timeout=0.2), wait=HOUR, hangs_after=BRIEFLY) as knows,
    ):
        for _ in range(3):
            await knows.finished("hook")
        await knows.until(lambda found: found[0].failures == 1)
        async with sending(database, leaves_for=timedelta()) as other:
            await other.finished("nowhere")
            async with wait_ends():
                while (found := await other.rows())[-1].state == "pending":
                    other.outbox.wake()
                    await asyncio.sleep(0.1)

    assert [(row.state, row.failures) for row in found[:3]] == [
        ("pending", 1),
        ("pending", 0),
        ("pending", 0),
    ]
