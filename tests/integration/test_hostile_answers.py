"""Answers that no honest server sends: none of them ends a run's chain, or takes the machine with it."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from support.house import House, keyed, logged_in, open_house

from jobs.errors import ErrorClass
from jobs.providers.client import LARGEST_BODY, Client
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply

pytestmark = pytest.mark.anyio
WITHIN = timedelta(seconds=10)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Serve the same bytes to whoever asks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def packed(status: int, body: bytes) -> bytes:
    content = gzip.compress(body)
    head = f"HTTP/1.1 {status} x\r\ncontent-encoding: gzip\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    providers = {
        "login": logged_in(server.base_url, server.token_url),
        "backup": keyed(f"{server.origin}/backup/v1", "BACKUP"),
    }
    async with open_house(tmp_path, providers) as house:
        yield house


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.close()


async def test_a_status_line_beyond_ascii_is_no_answer_and_no_crash(client: Client) -> None:
    async with raw_server(b"HTTP/1.1 429 f\xfcr heute genug\r\ncontent-length: 0\r\n\r\n") as url:
        answer = await client.post_form(url, {"x": "y"}, timeout=WITHIN)

    assert answer.status in (None, 429)


async def test_a_packed_answer_is_read_although_nobody_asked_for_it(client: Client) -> None:
    async with raw_server(packed(200, b'{"choices": []}')) as url:
        answer = await client.post_form(url, {"x": "y"}, timeout=WITHIN)

    assert answer.body == b'{"choices": []}'


@pytest.mark.parametrize("status", [200, 500])
async def test_a_packed_bomb_is_unpacked_no_further_than_the_limit(client: Client, status: int) -> None:
    async with raw_server(packed(status, b" " * (4 * LARGEST_BODY))) as url:
        answer = await client.post_form(url, {"x": "y"}, timeout=WITHIN)

    assert answer.status in (None, status)
    assert len(answer.body) <= LARGEST_BODY


async def test_a_count_of_tokens_that_no_database_holds_loses_no_answer(
    house: House, server: Loopback
) -> None:
    usage = {"prompt_tokens": 10**23, "completion_tokens": 3, "total_tokens": 10**23}
    choice = {"message": {"content": "paid for"}, "finish_reason": "stop"}
    server.script(Endpoint.CHAT, Reply.json(200, {"choices": [choice], "usage": usage}))

    answered = await house.complete(house.target("backup"))

    assert answered.completion.text == "paid for"
    assert answered.completion.usage.input_tokens is None


async def test_a_provider_whose_status_line_is_beyond_ascii_is_followed_by_the_next(
    tmp_path: Path, server: Loopback
) -> None:
    async with raw_server(b"HTTP/1.1 429 f\xfcr heute genug\r\ncontent-length: 0\r\n\r\n") as url:
        providers = {"odd": keyed(url, "ODD"), "backup": keyed(f"{server.origin}/backup/v1", "BACKUP")}
        async with open_house(tmp_path, providers) as house:
            answered = await house.complete(house.target("odd"), house.target("backup"))

    assert answered.attempt.target.provider == "backup"


async def test_a_granted_token_that_no_header_can_carry_is_no_grant(house: House, server: Loopback) -> None:
    await house.log_in("login", left=timedelta(seconds=-60))
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="tök€n"))

    answered = await house.complete(house.target("login"), house.target("backup"))

    assert answered.fallback_reason is ErrorClass.AUTH_UNAVAILABLE
