"""Answers that no honest server sends: none of them ends a run's chain, or takes the machine with it."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from support.hostile import LIES, SSE, HostileServer, said, with_length
from support.house import House, keyed, logged_in, open_house
from support.http_peer import HttpPeer
from support.ledger import NOW

from jobs.attempt import Attempt, Purpose
from jobs.credential import Credential, CredentialKind
from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import Answer
from jobs.providers.api_modes.reading import MOST_VALUES
from jobs.providers.api_modes.sse import MOST_EVENTS
from jobs.providers.client import LARGEST_BODY, LARGEST_ERROR, ROOM, Client
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.registry import Provider
from jobs.request import ApiMode, Request
from jobs.target import Target

pytestmark = pytest.mark.anyio
WITHIN = timedelta(seconds=40)


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Serve the same bytes to whoever asks."""
    async with HttpPeer(said(answer)) as peer:
        yield peer.url("/v1")


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


async def ask(client: Client, url: str, mode: ApiMode = ApiMode.CHAT_COMPLETIONS) -> Answer:
    """Ask a server as a provider is asked."""
    name = ProviderName("box")
    attempt = Attempt(
        id=1,
        target=Target(name, "m", url, mode),
        target_index=0,
        credential=Credential(name, "key", CredentialKind.KEY),
        purpose=Purpose.MAIN,
        base_url=url,
        api_mode=mode,
        started_at=NOW,
        secret=None,
        fingerprint=None,
    )
    return await client.ask(attempt, Provider(name, None, mode, ()), Request("?"), timeout=3 * WITHIN)


def failed(answer: Answer) -> bool:
    """Say whether nothing of an answer could be taken for one."""
    return answer.status != 200 or b"choices" not in answer.body or b'"content": ""' in answer.body


@pytest.mark.parametrize("way", LIES)
async def test_a_server_that_lies_is_answered_by_no_exception(client: Client, way: str) -> None:
    """Not by too much of its body either."""
    with HostileServer(LIES) as hostile:
        answer = await ask(client, hostile.url(way))

    assert failed(answer) or way in ("endless-events", "events-without-end")
    assert len(answer.body) <= (LARGEST_BODY if answer.status == 200 else LARGEST_ERROR)


@pytest.mark.parametrize("kind", ['["response.completed"]', '{"a": 1}', "null", "7"])
@pytest.mark.parametrize("mode", ApiMode)
async def test_an_event_of_no_known_kind_is_passed_by(client: Client, kind: str, mode: ApiMode) -> None:
    stream = SSE + f'data: {{"type": {kind}, "object": {kind}}}\n\ndata: [DONE]\n\n'.encode()
    with HostileServer({"odd": said(stream)}) as hostile:
        answer = await ask(client, hostile.url("odd"), mode)

    assert answer.status == 200


async def test_many_large_answers_at_once_share_the_room_and_leave_it(client: Client) -> None:
    """A dozen of 15 MB: a few are read, none takes the room of the next ones for ever."""
    large = with_length(b'{"choices": [{"message": {"content": "' + b"x" * (LARGEST_BODY - 100) + b'"}}]}')
    with HostileServer({"large": said(large)}) as hostile:
        together = await asyncio.gather(*(ask(client, hostile.url("large")) for _ in range(12)))
        alone = await ask(client, hostile.url("large"))

    assert sum(bool(answer.body) for answer in together) <= 4
    assert len(alone.body) > LARGEST_BODY - 200


@pytest.mark.parametrize("way", ["endless-body", "a-million-lines"])
async def test_a_small_answer_is_read_however_many_large_ones_there_are(
    client: Client, server: Loopback, way: str
) -> None:
    """While they are read, and while they wait to be parsed."""
    more_than_have_room = range(ROOM // LARGEST_BODY + 2)
    with HostileServer(LIES) as hostile:
        flood = [asyncio.ensure_future(ask(client, hostile.url(way))) for _ in more_than_have_room]
        small = []
        while not all(each.done() for each in flood):
            small.append(await ask(client, server.base_url))

    assert small
    assert not any(map(failed, small))


async def test_a_long_text_is_no_thicket(client: Client, server: Loopback) -> None:
    """Half a million characters are more than any model says; commas and all."""
    text = "one, [two], {three} " * 25_000
    server.script(Endpoint.CHAT, Reply.text(text))

    assert text.encode() in (await ask(client, server.base_url)).body
    assert len(text) == MOST_VALUES


async def test_a_stream_of_as_many_events_as_tokens_is_an_answer(client: Client) -> None:
    """A hundred thousand pieces of a word each."""
    piece = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    assert MOST_EVENTS > 100_000
    with HostileServer({"long": said(SSE + piece * 100_000 + end)}) as hostile:
        answer = await ask(client, hostile.url("long"))

    assert answer.body.count(b"word") == 100_000
