"""The port of figures and health: callers who say nothing, or take nothing, keep nobody else out for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge
from support.hang_guard import LONGEST

from jobs.errors import Unavailable
from scheduler.config.settings import Listen
from scheduler.http_server import HttpServer, bound, is_taken

pytestmark = pytest.mark.anyio

PATIENCE = LONGEST
ANY_PORT = Listen("127.0.0.1", 0)
MORE_THAN_SERVED = 130
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = 6_000_000  # characters, more than the kernel keeps for a caller who does not read

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def nothing() -> None:
    """Read no state."""


@asynccontextmanager
async def serving(*, registry: CollectorRegistry | None = None, **bounds: float) -> AsyncIterator[int]:
    """Give the port of a server that is well."""
    server = HttpServer(
        ANY_PORT,
        registry=registry or CollectorRegistry(),
        refresh=nothing,
        healthy=lambda: {"well": True},
        ready=lambda: {"well": True},
        **bounds,
    )
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


async def status(connection: Connection) -> int:
    """Ask for the health over a connection and return the status."""
    reader, writer = connection
    writer.write(HEALTH)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split()[1])


async def asked(port: int) -> int:
    """Return the health's status over a connection of its own."""
    connection = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await status(connection)
    finally:
        connection[1].close()


async def until(port: int, wanted: int) -> None:
    """Ask again and again until the health has this status."""
    async with asyncio.timeout(PATIENCE):
        while await asked(port) != wanted:
            await asyncio.sleep(0.05)


async def closed_by_the_server(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of what can be read."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            while await reader.read(1):
                pass
    return True


async def test_connections_that_ask_for_nothing_shut_monitoring_out_for_a_moment_only() -> None:
    """A machine that stands still while they come has the first of them shut out: then more come."""
    idle: list[Connection] = []
    async with serving(request_within=1.5) as port:
        async with asyncio.timeout(PATIENCE):
            while not idle or await asked(port) != 503:
                idle += [await asyncio.open_connection("127.0.0.1", port) for _ in range(MORE_THAN_SERVED)]
        await until(port, 200)
        ends = [closed_by_the_server(reader) for reader, _ in idle]
        assert all(await asyncio.gather(*ends))
        for _, writer in idle:
            writer.close()


@pytest.mark.parametrize("first", [b"", HEALTH], ids=["at first", "after an answer"])
async def test_a_request_that_comes_byte_by_byte_gets_no_more_time_than_any_other(first: bytes) -> None:
    async with serving(request_within=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        ended = asyncio.create_task(closed_by_the_server(reader))
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                while not ended.done():
                    writer.write(b"G")
                    await writer.drain()
                    await asyncio.sleep(0.05)
        assert await ended
        writer.close()


async def long_answer(port: int, *more: bytes) -> tuple[Connection, int]:
    """Ask for the figures and return the connection with the size of the answer's head, which is read.

    It is asked again where the machine has stood still for so long that the server hung up first.
    """
    asks = b"\r\n".join((HEALTH.replace(b"/healthz", b"/metrics").removesuffix(b"\r\n\r\n"), *more, b"", b""))
    async with asyncio.timeout(PATIENCE):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(asks)
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                return (reader, writer), len(await reader.readuntil(b"\r\n\r\n"))
            writer.close()


async def test_a_caller_who_does_not_read_the_answer_is_left() -> None:
    registry = CollectorRegistry()
    Gauge("long", "x" * LONG, registry=registry)
    async with serving(registry=registry, request_within=0.1, answer_within=0.5) as port:
        (reader, writer), received = await long_answer(port)
        await asyncio.sleep(1)  # the limit of the answer, twice
        with suppress(ConnectionError):
            while more := await reader.read(1 << 16):
                received += len(more)
        assert received < LONG
        writer.close()


async def test_a_caller_who_reads_slowly_gets_the_whole_answer() -> None:
    registry = CollectorRegistry()
    Gauge("long", "x" * LONG, registry=registry)
    async with serving(registry=registry, request_within=0.1, answer_within=PATIENCE) as port:
        (reader, writer), received = await long_answer(port, b"Connection: close")
        await asyncio.sleep(0.3)  # the limit of a request, three times
        while more := await reader.read(1 << 16):
            received += len(more)
        assert received > LONG
        writer.close()


async def test_a_connection_that_goes_on_asking_is_kept() -> None:
    """For longer than it has for one request; again where the machine has kept it from asking in time."""
    async with serving(request_within=0.4) as port, asyncio.timeout(PATIENCE):
        while not await asked_without_a_pause(port, seconds=1, pause=0.2):
            pass


async def asked_without_a_pause(port: int, *, seconds: float, pause: float) -> bool:
    """Ask on for so long over one connection, which is kept; False where it was silent for a pause."""
    now = asyncio.get_running_loop().time
    connection = await asyncio.open_connection("127.0.0.1", port)
    began = last = now()
    with closing(connection[1]):
        while now() < began + seconds:
            try:
                assert await status(connection) == 200
            except (ConnectionError, asyncio.IncompleteReadError):
                assert now() - last > pause, "it was not kept"
            if now() - last > pause:
                return False
            last = now()
            await asyncio.sleep(0.05)
    return True


def test_an_address_that_another_has_is_refused_with_what_to_do() -> None:
    with bound(ANY_PORT) as other:
        taken = Listen("127.0.0.1", other.getsockname()[1])
        assert is_taken(taken)
        with pytest.raises(Unavailable, match=r"Address already in use; another program .* another port"):
            bound(taken)
    assert not is_taken(taken)
