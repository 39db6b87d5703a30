"""The outbox at work on a real database: lanes, two senders, targets that go, clocks that were wrong."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Row, insert, select, update
from support.claiming import HOURLY
from support.delivering import literal, tools_with
from support.hang_guard import LONGEST
from support.hostile import Way, held, late, said, stalled
from support.http_peer import HttpPeer, answer
from support.ledger import target_of

from jobs import clock
from jobs.alert import AlertKind, Notice
from jobs.delivery.left_alone import LEFT_TO_OTHERS
from jobs.delivery.outbox import LONGEST_ERROR, Outbox, Ways
from jobs.delivery.room import AT_ONCE, HANGS_AFTER, STRANGERS_AT_ONCE
from jobs.delivery.send import Tools
from jobs.delivery.target import DeliveryTarget, FileTarget, WebhookTarget
from jobs.delivery_state import Deliver, DeliveryState
from jobs.events import DeliverySettled, Event, Events
from jobs.run import Consequences, Outcome, Served, Trigger
from jobs.store import deliveries, instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.store import Store
from jobs.store.tables import alerts
from jobs.store.tables import deliveries as table

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgresql"], indirect=True)
ACCEPTS, REFUSES = said(answer(200)), said(answer(503))
ANSWER = Outcome.succeeded("All is well.", served=Served("zai", "glm-5", "key"))
SECOND, HOUR, YEARS = timedelta(seconds=1), timedelta(hours=1), timedelta(days=3650)
TOLERANCE = LONGEST
BRIEFLY = 0.05  # seconds, after which a target counts as hanging


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return what kind of database the test runs on; the verbs behind it all are tested on both."""
    return str(request.param)


@dataclass
class Sender:
    """One process that sends: an outbox with a store and an instance of its own, and what it has said."""

    store: Store
    outbox: Outbox
    instance: int
    ways: Ways
    heard: list[Event] = field(default_factory=list)
    listen: Callable[[Callable[[Event], None]], None] = lambda _listener: None

    async def rows(self) -> Sequence[Row[Any]]:
        query = select(table).order_by(table.c.id)
        return await self.store.read(lambda connection: connection.execute(query).all())

    async def finished(self, *names: str, job: str = "digest") -> int:
        """End a run that goes to these targets, and return its id."""

        def end(connection: Connection) -> int:
            now = clock.utcnow()
            job_verbs.see_one(connection, job, HOURLY, now=now)
            run = runs.add(connection, job=job, trigger=Trigger.MANUAL, instance_id=self.instance, now=now)
            run = runs.start(connection, run, primary=target_of(), instance_id=self.instance, now=now)
            deliver = tuple(Deliver(name) for name in names)
            runs.finish(connection, run, ANSWER, now=now, consequences=Consequences(deliver=deliver))
            return run.id

        found = await self.store.write(end)
        self.outbox.wake()
        return found

    async def until(self, holds: Callable[[list[Any]], bool]) -> list[Any]:
        """Wait until that is true of the rows, and return them."""
        async with asyncio.timeout(TOLERANCE):
            while not holds(found := list(await self.rows())):
                await asyncio.sleep(0.02)
        return found

    async def all_are(self, *states: str) -> list[Any]:
        return await self.until(lambda found: [row.state for row in found] == list(states))


@asynccontextmanager
async def sending(
    database: str,
    *targets: DeliveryTarget,
    watches: bool = True,
    wait: timedelta = SECOND / 5,
    hangs_after: float = HANGS_AFTER,
    leaves_for: timedelta = LEFT_TO_OTHERS,
) -> AsyncIterator[Sender]:
    """Give a sender to these targets, at work until the block ends; it waits so long after each failure."""
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(tools_with())
        store = Store(database)
        stack.callback(store.close)
        instance = await store.write(instances.register, kind="daemon", version="0", now=clock.utcnow())
        heard: list[Event] = []
        events = Events(heard.append)
        ways = ways_to(tools, *targets)
        outbox = Outbox(
            store,
            events,
            ways,
            instance_id=instance,
            waits=[wait],
            hangs_after=hangs_after,
            leaves_for=leaves_for,
        )
        watching = asyncio.create_task(outbox.watch() if watches else asyncio.sleep(0))
        try:
            yield Sender(store, outbox, instance, ways, heard, events.listen)
        finally:
            await outbox.stop()
            await watching
            await store.write(instances.stop, instance, now=clock.utcnow())


@dataclass(frozen=True)
class Unheard:
    """A target of no kind, with a key in its words."""

    name: str = "bad"
    timeout: timedelta = SECOND
    words: str = "sk-abcdefghijklmnopqrstuvwxyz"


def ways_to(tools: Tools, *targets: DeliveryTarget) -> Ways:
    return Ways({each.name: each for each in targets}, {}, tools)


def hook(peer: HttpPeer, name: str = "hook", *, timeout: float = 5 * LONGEST) -> WebhookTarget:
    return WebhookTarget(name, literal(peer.url()), timeout=timedelta(seconds=timeout))


def inbox(directory: Path, name: str = "inbox") -> FileTarget:
    return FileTarget(name, f"{name}-{{run_id}}.md", directory)


def hanging(hangs_after: float) -> Way:
    """Refuse so late that it counts as hanging: whoever answers behind it has all the time that he needs."""
    return late(2 * hangs_after, REFUSES)


def keys(peer: HttpPeer) -> Counter[str]:
    return Counter(each.headers["idempotency-key"] for each in peer.taken)


@BOTH
async def test_what_failed_is_tried_again_by_itself_and_told_each_time(database: str) -> None:
    async with HttpPeer(REFUSES, ACCEPTS) as peer, sending(database, hook(peer)) as sender:
        run = await sender.finished("hook")
        await sender.all_are("delivered")
        await sender.outbox.drain(TOLERANCE)

    told = [event for event in sender.heard if isinstance(event, DeliverySettled)]
    assert [(each.outcome, each.attempts, each.run_id) for each in told] == [
        ("retried", 1, run),
        ("delivered", 2, run),
    ]
    assert "503" in str(told[0].why)
    assert told[0].again_at is not None


@BOTH
async def test_a_target_that_hangs_holds_up_nobody_else(kind: str, database: str, tmp_path: Path) -> None:
    """Nor do ten thousand that wait behind it: a portion of each target is looked at."""
    number = 10_000 if kind == "sqlite" else 1_000
    async with (
        HttpPeer(stalled()) as peer,
        sending(database, hook(peer), inbox(tmp_path)) as sender,
    ):
        await sender.finished("hook")
        await sender.until(lambda _: bool(peer.taken))
        await sender.store.write(crowd, number)
        mine = await sender.finished("inbox")
        async with asyncio.timeout(TOLERANCE):
            while not (tmp_path / f"inbox-{mine}.md").exists():
                await asyncio.sleep(0.02)
        found = await sender.store.read(
            deliveries.due, instance_id=sender.instance, now=clock.utcnow(), busy=()
        )

    assert len(peer.taken) == 1
    assert {name: len(seen) for name, seen in found.items()}["hook"] == deliveries.PORTION


def crowd(connection: Connection, number: int) -> None:
    """Put so many notices of one alert into the outbox."""
    now = clock.utcnow()
    told = {"opened_at": now, "told_at": now}
    alert = {"key": "job_failing:digest", "kind": AlertKind.JOB_FAILING, "message": "digest is failing"}
    alert_id = connection.execute(insert(alerts).values(**alert, **told).returning(alerts.c.id)).scalar_one()
    row = {"alert_id": alert_id, "notice": Notice.REMINDER, "subject": "still", "body": "failing"}
    row |= {"target": "hook", "state": DeliveryState.PENDING, "created_at": now, "next_attempt_at": now}
    connection.execute(insert(table), [{**row, "idempotency_key": f"key-{n}"} for n in range(number)])


@BOTH
async def test_two_processes_send_each_delivery_once(database: str, tmp_path: Path) -> None:
    async with (
        HttpPeer(ACCEPTS) as peer,
        sending(database, hook(peer), inbox(tmp_path)) as one,
        sending(database, hook(peer), inbox(tmp_path)) as two,
    ):
        for _ in range(10):
            await one.finished("hook", "inbox")
            two.outbox.wake()
        found = await one.all_are(*["delivered"] * 20)
        await asyncio.gather(one.outbox.drain(TOLERANCE), two.outbox.drain(TOLERANCE))

    assert {row.attempts for row in found} == {1}
    assert (len(keys(peer)), set(keys(peer).values())) == (10, {1})
    assert len(one.heard) + len(two.heard) == 20


@BOTH
async def test_what_a_process_was_sending_when_it_stopped_is_sent_by_another_with_the_same_key(
    database: str,
) -> None:
    async with HttpPeer(stalled(), ACCEPTS) as peer:
        async with sending(database, hook(peer)) as stopping:
            await stopping.finished("hook")
            await stopping.until(lambda _: bool(peer.taken))
        async with sending(database, hook(peer)) as other:
            (row,) = await other.all_are("delivered")

    assert (row.attempts, row.failures) == (2, 0)
    assert list(keys(peer).values()) == [2]


async def test_a_stop_gives_what_is_being_sent_its_time_and_begins_nothing_more(database: str) -> None:
    """Neither what waits behind it for the same target, nor what is written meanwhile."""
    accepts = asyncio.Event()
    async with HttpPeer(held(accepts, ACCEPTS)) as peer, sending(database, hook(peer)) as sender:
        await sender.finished("hook")
        await sender.finished("hook")
        await sender.until(lambda _: bool(peer.taken))
        draining = asyncio.create_task(sender.outbox.drain(TOLERANCE))
        await sender.finished("hook")
        accepts.set()
        await draining
        found = await sender.rows()

    assert [(row.state, row.attempts) for row in found] == [
        ("delivered", 1),
        ("pending", 0),
        ("pending", 0),
    ]


async def test_what_goes_to_a_target_that_nobody_knows_any_more_is_a_dead_letter(
    database: str, tmp_path: Path
) -> None:
    """A reload has renamed it; the row says what to do."""
    async with sending(database, inbox(tmp_path)) as sender:
        sender.outbox.take(ways_to(sender.ways.tools, inbox(tmp_path, "mailbox")))
        await sender.finished("inbox")
        (row,) = await sender.all_are("failed")

        sender.outbox.take(sender.ways)
        await sender.store.write(deliveries.ask_again, [row.id], now=clock.utcnow())
        sender.outbox.wake()
        await sender.all_are("delivered")

    assert row.last_error == (
        f"no delivery target named 'inbox'; put it back and `promptd delivery retry {row.id}`"
    )


async def test_no_more_than_a_few_lines_of_an_error_are_kept(database: str) -> None:
    async with sending(database) as sender:
        await sender.finished("x" * 2_000)
        (row,) = await sender.all_are("failed")

    assert len(row.last_error) == LONGEST_ERROR


async def test_a_target_that_another_daemon_may_know_is_left_to_it(database: str, tmp_path: Path) -> None:
    """One of two daemons has been reloaded already."""
    async with HttpPeer(ACCEPTS) as peer, sending(database, hook(peer)) as old:
        async with sending(database, inbox(tmp_path), watches=False):
            await old.finished("inbox", "hook")
            left, _sent = await old.until(lambda found: found[1].state == "delivered")
        old.outbox.wake()
        dead, _sent = await old.all_are("failed", "delivered")

    assert (left.state, left.attempts, left.failures) == ("pending", 0, 0)
    assert (dead.attempts, dead.failures) == (1, 1)


async def test_of_two_daemons_the_one_that_knows_a_target_sends_to_it_at_the_first_try(
    database: str, tmp_path: Path
) -> None:
    async with sending(database) as old, sending(database, inbox(tmp_path)) as new:
        for _ in range(5):
            await old.finished("inbox")
            new.outbox.wake()
        found = await new.all_are(*["delivered"] * 5)

    assert {(row.attempts, row.failures) for row in found} == {(1, 0)}


async def test_a_process_that_ends_with_its_run_leaves_what_it_does_not_know_alone(
    database: str, tmp_path: Path
) -> None:
    async with sending(database, inbox(tmp_path), watches=False) as sender:
        mine = await sender.finished("inbox", "elsewhere")

        await sender.outbox.send_of(mine)

        found = await sender.rows()
    assert [(row.state, row.attempts) for row in found] == [("delivered", 1), ("pending", 0)]


async def test_what_is_being_sent_to_a_target_that_changes_is_sent_anew_and_has_not_failed(
    database: str,
) -> None:
    """Its receiver hangs; a reload says where to, or how long, now. Others are not disturbed."""
    accepts = asyncio.Event()
    async with (
        HttpPeer(stalled()) as old,
        HttpPeer(ACCEPTS) as new,
        HttpPeer(held(accepts, ACCEPTS)) as other,
        sending(database, hook(old), hook(other, "other")) as sender,
    ):
        await sender.finished("hook", "other")
        await sender.finished("hook")
        await sender.until(lambda _: bool(old.taken and other.taken))
        sender.outbox.take(ways_to(sender.ways.tools, hook(new), hook(other, "other")))
        await sender.until(lambda found: found[0].state == found[2].state == "delivered")
        accepts.set()
        first, elsewhere, second = await sender.all_are(*["delivered"] * 3)

    assert [(row.attempts, row.failures) for row in (first, elsewhere, second)] == [(2, 0), (1, 0), (1, 0)]
    assert [each.headers["idempotency-key"] for each in new.taken] == [
        first.idempotency_key,
        second.idempotency_key,
    ]


async def test_what_is_being_sent_to_a_target_that_goes_is_given_to_a_daemon_that_knows_it(
    database: str,
) -> None:
    async with (
        HttpPeer(stalled(), ACCEPTS) as peer,
        sending(database, hook(peer)) as one,
        sending(database, watches=False),
    ):
        await one.finished("hook")
        await one.until(lambda _: bool(peer.taken))
        one.outbox.take(ways_to(one.ways.tools))
        (row,) = await one.until(lambda found: found[0].sending_by is None)

    assert (row.state, row.attempts, row.failures) == ("pending", 1, 0)


async def test_targets_that_hang_hold_up_no_other_for_longer_than_it_takes_to_see_that(
    database: str, tmp_path: Path
) -> None:
    """There are more of them than begin at once, and they hang for longer than anybody waits here."""
    names = [f"hook-{number}" for number in range(AT_ONCE + 2)]
    async with (
        HttpPeer(stalled()) as peer,
        sending(database, *(hook(peer, each) for each in names), inbox(tmp_path)) as sender,
    ):
        await sender.finished(*names)
        await sender.until(lambda _: len(peer.taken) >= STRANGERS_AT_ONCE)
        await sender.finished("inbox")
        await sender.until(lambda found: found[-1].state == "delivered")
        await sender.until(lambda _: len(peer.taken) == len(names))


async def test_a_target_that_refuses_at_once_is_asked_for_the_next_at_once(database: str) -> None:
    """What is wrong may be the one that it refuses."""
    async with (
        HttpPeer(REFUSES, ACCEPTS) as peer,
        sending(database, hook(peer), wait=HOUR, hangs_after=LONGEST) as sender,
    ):
        await sender.finished("hook")
        await sender.finished("hook")
        first, _second = await sender.all_are("pending", "delivered")

    assert first.failures == 1


async def test_a_target_that_hangs_is_left_alone_until_its_next_try_is_due(database: str) -> None:
    """What else waits for it is not tried against it one by one, until somebody asks for it."""
    async with (
        HttpPeer(hanging(BRIEFLY), ACCEPTS) as peer,
        sending(database, hook(peer), wait=HOUR, hangs_after=BRIEFLY) as sender,
    ):
        for _ in range(3):
            await sender.finished("hook")
        await sender.until(lambda found: found[0].failures == 1)
        sender.outbox.wake()
        other = await sender.finished("elsewhere")
        await sender.until(lambda found: found[-1].state == "failed")
        before = len(peer.taken)
        sender.outbox.hasten()
        found = await sender.until(lambda found: found[2].state == "delivered")

    assert before == 1
    assert [row.attempts for row in found if row.run_id != other] == [1, 1, 1]


async def test_ten_failures_make_a_dead_letter(database: str) -> None:
    async with HttpPeer(REFUSES) as peer, sending(database, hook(peer), wait=timedelta()) as sender:
        await sender.finished("hook")
        (row,) = await sender.until(lambda found: found[0].state != "pending")

    assert (row.state, row.attempts, row.failures, len(peer.taken)) == ("failed", 10, 10, 10)
    assert "503" in row.last_error


async def test_a_fault_of_our_own_fails_one_delivery_and_no_other(database: str, tmp_path: Path) -> None:
    """A kind of target that nobody can send to stands for whatever may be wrong in sending."""
    async with sending(database, Unheard(), inbox(tmp_path)) as sender:  # type: ignore[arg-type]
        await sender.finished("bad", "inbox")
        bad, good = await sender.until(lambda found: found[1].state == "delivered" and found[0].failures > 0)

    assert bad.last_error.startswith("AssertionError")
    assert "sk-abc" not in bad.last_error
    assert good.attempts == 1


async def test_what_a_clock_that_was_ahead_has_written_is_sent_now(database: str, tmp_path: Path) -> None:
    """The clock was set back while no daemon ran: nothing waits for the years that it showed."""
    async with sending(database, inbox(tmp_path), watches=False) as before:
        await before.finished("inbox")
        ahead = clock.utcnow() + YEARS
        later = update(table).values(created_at=ahead, next_attempt_at=ahead)
        await before.store.write(lambda connection: connection.execute(later).rowcount)

    async with sending(database, inbox(tmp_path)) as sender:
        await sender.all_are("delivered")


async def test_rows_of_other_processes_are_found_without_being_told(database: str, tmp_path: Path) -> None:
    async with (
        sending(database, inbox(tmp_path)) as sender,
        sending(database, watches=False) as command,
    ):
        await command.finished("inbox")
        await sender.all_are("delivered")


async def test_only_its_own_are_sent_by_a_process_that_ends_with_its_run(
    database: str, tmp_path: Path
) -> None:
    async with sending(database, inbox(tmp_path), watches=False) as sender:
        mine, _others = await sender.finished("inbox"), await sender.finished("inbox")

        await sender.outbox.send_of(mine)

        found = await sender.rows()
    assert [row.state for row in found] == ["delivered", "pending"]
