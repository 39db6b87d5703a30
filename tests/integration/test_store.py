"""The one writer: group commit, a savepoint for each verb, and an answer for each caller."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from support.hang_guard import LONGEST

from jobs.errors import Unavailable
from jobs.store.engine import kind_of
from jobs.store.store import LARGEST_GROUP, Store

pytestmark = pytest.mark.anyio


def run(connection: Connection, statement: str) -> None:
    """Run one statement."""
    connection.exec_driver_sql(statement)


@pytest.fixture
async def store(empty_database: str) -> AsyncIterator[Store]:
    """Yield a store with one table."""
    store = Store(empty_database)
    await store.write(run, "CREATE TABLE t (x INTEGER UNIQUE)")
    yield store
    await asyncio.to_thread(store.close)


def insert(connection: Connection, value: int) -> int:
    """Insert a value and return it."""
    connection.execute(text("INSERT INTO t VALUES (:value)"), {"value": value})
    return value


def insert_and_fail(connection: Connection, value: int) -> None:
    """Insert a value, then find a reason not to have."""
    insert(connection, value)
    raise ZeroDivisionError(value)


def values(connection: Connection) -> list[int]:
    """Return what is in the table."""
    return [row.x for row in connection.exec_driver_sql("SELECT x FROM t ORDER BY x")]


class Gate:
    """A verb that holds the writer until it is opened, so that others gather behind it."""

    def __init__(self) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()

    def __call__(self, connection: Connection) -> None:
        """Wait, in the writer's thread."""
        self._entered.set()
        assert self._opened.wait(LONGEST)

    async def entered(self) -> None:
        """Return once the writer is held."""
        assert await asyncio.to_thread(self._entered.wait, LONGEST)

    def open(self) -> None:
        """Let the writer go on."""
        self._opened.set()


async def behind_a_gate(store: Store, *verbs: object) -> list[object]:
    """Run verbs that all wait together; return their results, or what they raised."""
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.entered()
    waiting = [asyncio.ensure_future(verb) for verb in verbs]  # type: ignore[call-overload]
    await asyncio.sleep(0)
    gate.open()
    await held
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_verbs_that_wait_together_share_a_transaction(store: Store) -> None:
    """Many writes, one fsync; each caller has its own result."""
    commits: list[int] = []
    event.listen(store._writing, "commit", lambda connection: commits.append(1))

    results = await behind_a_gate(store, *(store.write(insert, number) for number in range(LARGEST_GROUP)))

    assert results == list(range(LARGEST_GROUP))
    assert len(commits) == 2, "the gate's own transaction, and one for all the others"


async def test_a_verb_that_fails_rolls_back_alone(store: Store) -> None:
    """Its neighbours in the same transaction are committed; it raises where it was asked for."""
    before, failed, after = await behind_a_gate(
        store, store.write(insert, 1), store.write(insert_and_fail, 2), store.write(insert, 3)
    )

    assert (before, after) == (1, 3)
    assert isinstance(failed, ZeroDivisionError)
    assert await store.read(values) == [1, 3]


async def test_a_row_that_the_database_refuses_harms_nobody_else(store: Store) -> None:
    """A broken constraint is that verb's own failure."""
    first, second, third = await behind_a_gate(
        store, store.write(insert, 1), store.write(insert, 1), store.write(insert, 2)
    )

    assert (first, third) == (1, 2)
    assert isinstance(second, IntegrityError)
    assert await store.read(values) == [1, 2]


async def test_a_verb_sees_what_verbs_before_it_have_written(store: Store) -> None:
    """They are run one after the other."""
    _, seen = await behind_a_gate(store, store.write(insert, 1), store.write(values))

    assert seen == [1]


async def test_a_caller_that_is_cancelled_leaves_its_verb_whole(store: Store) -> None:
    """It was handed over: it is committed, and the neighbours too."""
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.entered()
    cancelled, other = (asyncio.create_task(store.write(insert, number)) for number in (1, 2))
    await asyncio.sleep(0)

    cancelled.cancel()
    await asyncio.wait([cancelled])
    gate.open()

    await held
    assert await other == 2
    assert cancelled.cancelled()
    assert await store.read(values) == [1, 2]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_a_verb_that_finds_the_disk_full_fails_alone_where_sqlite_lets_it(store: Store) -> None:
    """Its neighbours have room."""

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE big AS SELECT randomblob(1000000) AS x")

    await store.write(run, "PRAGMA max_page_count = 4")

    before, full, after = await behind_a_gate(
        store, store.write(insert, 1), store.write(fill), store.write(insert, 2)
    )

    assert (before, after) == (1, 2)
    assert isinstance(full, DBAPIError)
    assert kind_of(full) == "full"


async def test_when_the_whole_transaction_is_lost_everybody_is_told_why(store: Store) -> None:
    """A database may roll it back by itself, as SQLite when the disk is full: then no write is there."""

    def lose(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")
        raise ZeroDivisionError("the disk is full")

    results = await behind_a_gate(store, store.write(insert, 1), store.write(lose), store.write(insert, 2))

    assert [repr(each) for each in results] == ["ZeroDivisionError('the disk is full')"] * 3
    assert await store.read(values) == []
    assert await store.write(insert, 3) == 3, "the writer goes on"


async def test_a_read_sees_a_snapshot(store: Store) -> None:
    """And waits for no writer."""
    await store.write(insert, 1)
    begun, go_on = threading.Event(), threading.Event()

    def read_twice(connection: Connection) -> tuple[list[int], list[int]]:
        first = values(connection)
        begun.set()
        assert go_on.wait(LONGEST)
        return first, values(connection)

    reading = asyncio.create_task(store.read(read_twice))
    await asyncio.to_thread(begun.wait, LONGEST)
    await store.write(insert, 2)
    go_on.set()

    assert await reading == ([1], [1])
    assert await store.read(values) == [1, 2]


async def test_closing_finishes_what_was_handed_over(store: Store) -> None:
    """And refuses what comes later."""
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.entered()
    handed_over = [asyncio.create_task(store.write(insert, number)) for number in range(20)]
    await asyncio.sleep(0)

    closing = asyncio.create_task(asyncio.to_thread(store.close))
    gate.open()
    await closing

    await held
    assert await asyncio.gather(*handed_over) == list(range(20))
    with pytest.raises(Unavailable, match="closed"):
        await store.write(insert, 99)
    store.close()


async def test_the_writer_says_when_it_last_wrote(store: Store) -> None:
    """`/healthz` and the watchdog look at it."""
    before = store.fresh_at

    await store.write(insert, 1)

    assert store.fresh_at > before
    assert store.last_group_seconds > 0


async def test_a_writer_that_rests_is_fresh_and_one_that_hangs_grows_stale(store: Store) -> None:
    """Nobody writes while the database cannot even be read: that is no reason to start the daemon anew."""
    gate = Gate()
    held = asyncio.create_task(store.write(gate))
    await gate.entered()
    began = store.fresh_at
    waiting = asyncio.create_task(store.write(insert, 1))
    await asyncio.sleep(0.01)
    hung = store.fresh_at
    gate.open()
    await asyncio.gather(held, waiting)
    ended = store.fresh_at
    await asyncio.sleep(0.01)

    assert began == hung < ended < store.fresh_at
