"""The writer, when its PostgreSQL server goes away: nothing is lost or twice, and it goes on by itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from support.hang_guard import LONGEST
from support.ledger import NOW
from support.postgres import Server
from support.wire import Cut, Wire, wire_to

from jobs.store import instances
from jobs.store.engine import kind_of
from jobs.store.store import Store

pytestmark = pytest.mark.anyio
COMMIT = b"COMMIT\0"  # the whole statement: BEGIN names READ COMMITTED


def register(connection: Connection) -> int:
    """Write a row, and return its id."""
    return instances.register(connection, kind="command", version="0", now=NOW)


def newest(connection: Connection) -> int:
    """Return the newest row's id."""
    return int(connection.execute(text("SELECT max(id) FROM instances")).scalar_one())


def count(connection: Connection) -> int:
    """Return how many rows there are."""
    return int(connection.execute(text("SELECT count(*) FROM instances")).scalar_one())


@pytest.fixture
def name(postgres: Server, template: str) -> Iterator[str]:
    """Yield the name of a fresh database."""
    name = postgres.create(template=template)
    yield name
    postgres.drop(name)


@pytest.fixture
def wire(postgres: Server) -> Iterator[Wire]:
    """Yield a wire to the server."""
    with wire_to(postgres.port) as wire:
        yield wire


@pytest.fixture
async def store(postgres: Server, name: str, wire: Wire) -> AsyncIterator[Store]:
    """Yield a store at the end of the wire; it has written once."""
    store = Store(postgres.url(name, port=wire.port))
    await store.write(register)
    yield store
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("cut", Cut)
async def test_a_commit_without_an_answer_is_asked_after_and_done_once(
    store: Store, wire: Wire, cut: Cut
) -> None:
    """Whether it got there or not: nothing is lost or twice, and the verb's own result comes back."""
    wire.cut_at(COMMIT, cut)
    written = asyncio.create_task(store.insist(register))
    assert await asyncio.to_thread(wire.was_cut.wait, LONGEST)

    with pytest.raises(DBAPIError) as meanwhile:
        await store.write(register)
    wire.mend()

    assert kind_of(meanwhile.value) == "unreachable"
    assert await written == await store.read(newest)
    assert await store.read(count) == 2


async def test_a_commit_that_is_still_in_doubt_at_the_end_is_told_as_a_failure(
    store: Store, wire: Wire
) -> None:
    wire.cut_at(COMMIT, Cut.WORD)
    written = asyncio.create_task(store.write(register))
    assert await asyncio.to_thread(wire.was_cut.wait, LONGEST)

    await asyncio.to_thread(store.close)

    with pytest.raises(DBAPIError):
        await written


def write_again(connection: Connection) -> None:
    """Find that the session has ended."""
    register(connection)


def fail(_connection: Connection) -> None:
    """Find a reason not to have written, and nothing of the session."""
    raise ZeroDivisionError


@pytest.mark.parametrize("then", [write_again, fail])
async def test_a_group_whose_session_is_ended_is_not_written_and_the_next_one_is(
    store: Store, postgres: Server, then: Callable[[Connection], None]
) -> None:
    """Everybody in it is told what happened to the server, also where one verb has failed by itself."""

    def put_out(connection: Connection) -> None:
        register(connection)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        postgres.do(f"SELECT pg_terminate_backend({pid}, 10000)")
        then(connection)

    with pytest.raises(DBAPIError) as ended:
        await store.write(put_out)

    assert kind_of(ended.value) == "unreachable"
    await store.write(register)
    assert await store.read(count) == 2


async def test_what_must_not_be_lost_waits_for_a_server_that_is_away(store: Store, wire: Wire) -> None:
    """Writes and reads alike."""
    wire.cut_at(b"SAVEPOINT", Cut.WORD)
    written = asyncio.create_task(store.insist(register))
    assert await asyncio.to_thread(wire.was_cut.wait, LONGEST)
    read = asyncio.create_task(store.insist_on_reading(count))
    await asyncio.wait((written, read), timeout=0.2)
    assert not written.done()
    wire.mend()

    await written
    assert await read in (1, 2)
    assert await store.read(count) == 2
