"""The loopback server, asked by the real openai SDK and by plain HTTP clients."""

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from support.hang_guard import LONGEST, wait_ends

from jobs.providers.loopback import MAX_BODY, Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hello"}]
JSON = {"content-type": "application/json"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as loopback:
        yield loopback


@pytest.fixture
async def client(server: Loopback) -> AsyncIterator[openai.AsyncOpenAI]:
    made = openai.AsyncOpenAI(base_url=server.base_url, api_key="key-1", max_retries=0, timeout=LONGEST)
    async with made as client:
        yield client


@pytest.fixture
def threaded() -> Iterator[ThreadedLoopback]:
    with ThreadedLoopback() as loopback:
        yield loopback


def ask(
    server: ThreadedLoopback, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def refresh(server: ThreadedLoopback, token: str) -> tuple[int, dict[str, Any]]:
    form = urlencode({"grant_type": "refresh_token", "refresh_token": token, "client_id": "c"})
    status, body = ask(
        server, "POST", "/oauth/token", form, {"content-type": "application/x-www-form-urlencoded"}
    )
    return status, json.loads(body)


@pytest.mark.anyio
async def test_a_text_is_a_chat_completion(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """The chat endpoint answers with a document that the SDK reads, usage included."""
    server.script(Endpoint.CHAT, Reply.text("{model} heard {prompt}", usage=(7, 3)))

    answer = await client.chat.completions.create(model="m", messages=HELLO)

    assert answer.choices[0].message.content == "m heard hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)


@pytest.mark.anyio
async def test_a_text_is_streamed_as_chat_chunks(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """With `stream: true` the text comes in several chunks, then its end, then the usage asked for."""
    server.script(Endpoint.CHAT, Reply.text("one two three four five"))

    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == "one two three four five" and sum(map(bool, said)) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


@pytest.mark.anyio
async def test_a_text_is_a_completed_response(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """The responses endpoint answers with a completed document; a callable sees the request."""
    server.script(Endpoint.RESPONSES, Reply.text(lambda received: received.prompt.upper()))

    answer = await client.responses.create(model="m", input="hello")

    assert (answer.status, answer.output_text) == ("completed", "HELLO")
    assert answer.usage is not None and answer.usage.total_tokens > 0


@pytest.mark.anyio
async def test_a_text_is_streamed_as_response_events(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """With `stream: true` the events run from created over deltas to completed."""
    server.script(Endpoint.RESPONSES, Reply.text("one two three four five"))

    stream = await client.responses.create(model="m", input="hello", stream=True)
    events = [event async for event in stream]

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert events[0].type == "response.created"
    assert "".join(deltas) == "one two three four five" and len(deltas) > 1
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "one two three four five"


@pytest.mark.anyio
async def test_a_text_that_ends_for_its_length(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """`finish="length"` is told in the words of each endpoint."""
    for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES):
        server.script(endpoint, Reply.text("half", finish="length"))

    chat = await client.chat.completions.create(model="m", messages=HELLO)
    response = await client.responses.create(model="m", input="hello")

    assert chat.choices[0].finish_reason == "length"
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_response_carries_its_output(
    server: Loopback, client: openai.AsyncOpenAI, stream: bool
) -> None:
    """S5: HTTP 200 with status failed, an error code, and half an answer all the same."""
    reply = Reply.responses_status("failed", code="insufficient_quota", output_text="half an answer")
    server.script(Endpoint.RESPONSES, reply)

    if stream:
        events = [event async for event in await client.responses.create(model="m", input="x", stream=True)]
        assert events[-1].type == "response.failed"
        answer = events[-1].response
    else:
        answer = await client.responses.create(model="m", input="x")

    assert (answer.status, answer.output_text) == ("failed", "half an answer")
    assert answer.error is not None and str(answer.error.code) == "insufficient_quota"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "raised"),
    [(401, openai.AuthenticationError), (404, openai.NotFoundError), (429, openai.RateLimitError),
     (503, openai.InternalServerError)],
)  # fmt: skip
async def test_an_error_raises_the_sdks_exception(
    server: Loopback, client: openai.AsyncOpenAI, status: int, raised: type[openai.APIStatusError]
) -> None:
    """Status, code, type and headers of a scripted error arrive."""
    reply = Reply.error(status, code="c", type="t", message="no", headers={"retry-after": "7"})
    server.script(Endpoint.CHAT, reply)

    with pytest.raises(raised) as caught:
        await client.chat.completions.create(model="m", messages=HELLO)

    assert (caught.value.code, caught.value.type) == ("c", "t")
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.anyio
@pytest.mark.parametrize("after_bytes", [0, 20])
async def test_a_cut_connection_is_a_connection_error(
    server: Loopback, client: openai.AsyncOpenAI, after_bytes: int
) -> None:
    """A connection dropped before the answer or within it is an APIConnectionError; the next call works."""
    server.script(Endpoint.CHAT, Reply.text("never whole").cut(after_bytes), Reply.text("whole"))

    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(model="m", messages=HELLO)
    answer = await client.chat.completions.create(model="m", messages=HELLO)

    assert answer.choices[0].message.content == "whole"


@pytest.mark.anyio
async def test_a_stream_that_is_cut_yields_its_first_events(
    server: Loopback, client: openai.AsyncOpenAI
) -> None:
    """What was sent before the cut is read, then the stream breaks."""
    server.script(Endpoint.RESPONSES, Reply.text("word " * 100).cut(2000))
    seen: list[str] = []

    async def listen() -> None:
        stream = await client.responses.create(model="m", input="x", stream=True)
        async for event in stream:
            seen.append(event.type)  # noqa: PERF401 - the stream breaks, and what came before is wanted

    with pytest.raises(openai.APIConnectionError):
        await listen()

    assert seen[0] == "response.created" and "response.completed" not in seen


@pytest.mark.anyio
async def test_a_slow_stream_arrives_whole(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """However small the pieces of its body."""
    server.script(Endpoint.CHAT, Reply.text("slow but whole").slowly(10, 0.001))

    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    said = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(said) == "slow but whole"


@pytest.mark.anyio
async def test_a_slow_stream_begins_at_once(server: Loopback, client: openai.AsyncOpenAI) -> None:
    """Its head is there; the first piece of its body would come in an hour."""
    server.script(Endpoint.CHAT, Reply.text("slow but whole").slowly(10, 3600))

    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)

    assert stream.response.status_code == 200


@pytest.mark.anyio
async def test_a_silent_reply_never_comes(server: Loopback) -> None:
    """The request is remembered, the client times out, and nothing stays in flight."""
    server.script(Endpoint.CHAT, Reply.text("lost").silent())
    soon = openai.Timeout(LONGEST, read=0.2)
    async with openai.AsyncOpenAI(
        base_url=server.base_url, api_key="k", max_retries=0, timeout=soon
    ) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="m", messages=HELLO)

    await server.wait_received(1)
    async with wait_ends():
        while server.in_flight:
            await asyncio.sleep(0.001)
    assert len(server.requests) == 1


def test_what_is_held_is_answered_once_the_server_has_let_it_go(threaded: ThreadedLoopback) -> None:
    threaded.script(Endpoint.CHAT, Reply.text("at last").held())
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(ask, threaded, "POST", "/v1/chat/completions", b"{}", JSON)
        threaded.wait_received(1)
        assert ask(threaded, "GET", "/v1/models")[0] == 200, "what came later is answered meanwhile"
        assert not asked.done()
        threaded.let_go()
        status, body = asked.result(LONGEST)

    assert (status, b"at last" in body) == (200, True)
    assert ask(threaded, "POST", "/v1/chat/completions", b"{}", JSON)[0] == 200, "nothing is held any more"


@pytest.mark.anyio
async def test_five_hundred_delayed_requests_are_in_flight_at_once(server: Loopback) -> None:
    """500 connections that each wait half a second take far less than 250 seconds, and all are answered."""
    server.script(Endpoint.CHAT, Reply.text("{prompt}").after(0.5))

    async def one(number: int) -> str:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"n{number}"}]})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{head}\r\nconnection: close\r\n\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
        content: str = json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
        return content

    async with wait_ends():
        answers = await asyncio.gather(*(one(number) for number in range(500)))

    assert answers == [f"n{number}" for number in range(500)]


@pytest.mark.anyio
async def test_stopping_does_not_wait_for_hanging_connections() -> None:
    """Silent and delayed replies end with `stop`, and the port can be taken again."""
    server = Loopback()
    await server.start()
    port = server.port
    server.script(Endpoint.MODELS, Reply.text("").silent(), Reply.text("").after(10 * LONGEST))
    writers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        writers.append(writer)
    await server.wait_received(2)

    async with wait_ends():
        await server.stop()

    assert server.in_flight == 0
    await server.start()
    assert server.port == port
    await server.stop()
    for writer in writers:
        writer.close()


@pytest.mark.anyio
async def test_codex_insists_on_stream_store_and_account(server: Loopback) -> None:
    """The Codex endpoint refuses what the real one refuses, and leaves the script untouched by it."""
    server.script(Endpoint.CODEX, Reply.text("fine"), Reply.text("too far"))
    async with openai.AsyncOpenAI(base_url=server.codex_url, api_key="k", max_retries=0) as client:
        for wrong in ({"stream": False, "store": False}, {"stream": True}, {"stream": True, "store": False}):
            with pytest.raises(openai.BadRequestError):
                await client.post("/responses", body={"model": "m", "input": "x", **wrong}, cast_to=object)

        stream = await client.responses.create(
            model="m", input="x", stream=True, store=False, extra_headers={"chatgpt-account-id": "acc"}
        )
        events = [event async for event in stream]

    assert events[-1].type == "response.completed" and events[-1].response.output_text == "fine"


def test_replies_are_used_in_order_and_the_last_repeats(threaded: ThreadedLoopback) -> None:
    """Two replies serve three requests: first, second, second."""
    threaded.script(Endpoint.MODELS, Reply.text("first"), Reply.text("second"))

    answers = [ask(threaded, "GET", "/v1/models")[1] for _ in range(3)]

    assert answers == [b"first", b"second", b"second"]


@pytest.mark.parametrize(
    ("key", "model", "said"),
    [("k", "m", b"both"), ("k", "x", b"key"), ("x", "m", b"model"), ("x", "x", b"any")],
)
def test_the_most_specific_script_wins(threaded: ThreadedLoopback, key: str, model: str, said: bytes) -> None:
    """Key and model beat key, key beats model, model beats the script for all."""
    threaded.script(Endpoint.CHAT, Reply.raw(200, body=b"any"))
    threaded.script(Endpoint.CHAT, Reply.raw(200, body=b"model"), model="m")
    threaded.script(Endpoint.CHAT, Reply.raw(200, body=b"key"), key="k")
    threaded.script(Endpoint.CHAT, Reply.raw(200, body=b"both"), key="k", model="m")

    body = json.dumps({"model": model})
    answer = ask(threaded, "POST", "/v1/chat/completions", body, {**JSON, "authorization": f"Bearer {key}"})

    assert answer == (200, said)


def test_a_request_is_remembered_and_keeps_its_secrets(threaded: ThreadedLoopback) -> None:
    """Method, path, duplicates of headers, body, key and model are kept; the repr shows no secret."""
    with socket.create_connection(("127.0.0.1", threaded.port), timeout=LONGEST) as client:
        client.sendall(
            b"POST /v1/responses?api-version=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-secret\r\n"
            b"X-Twice: a\r\nx-twice: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'b\r\n{"model":"m\r\n15\r\n","input":"private!"}\r\n0\r\n\r\n'
        )
        assert client.recv(12) == b"HTTP/1.1 200"

    [received] = threaded.received(Endpoint.RESPONSES, "sk-secret")
    assert (received.method, received.path, received.query) == ("POST", "/v1/responses", "api-version=1")
    assert (received.key, received.model, received.prompt) == ("sk-secret", "m", "private!")
    assert [pair for pair in received.headers if pair[0].lower() == "x-twice"] == [
        ("X-Twice", "a"),
        ("x-twice", "b"),
    ]
    assert received.by_name["x-twice"] == "a, b"
    assert received.json() == {"model": "m", "input": "private!"}
    assert "secret" not in repr(received) and "private" not in repr(received)
    assert threaded.received(Endpoint.CHAT) == [] and threaded.received(key="other") == []


def test_a_connection_serves_many_requests(threaded: ThreadedLoopback) -> None:
    """Keep-alive: raw, error and streamed answers follow one another on one connection."""
    threaded.script(Endpoint.CHAT, Reply.raw(503, {"X-Why": "tired"}, b"<html>"), Reply.text("ok"))
    connection = http.client.HTTPConnection("127.0.0.1", threaded.port, timeout=LONGEST)
    seen, sockets = [], set()
    for stream in (False, True, False):
        body = json.dumps({"model": "m", "messages": [], "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, JSON)
        answer = connection.getresponse()
        seen.append((answer.status, answer.getheader("x-why"), answer.read()[:6]))
        sockets.add(connection.sock)
    connection.close()

    assert len(sockets) == 1
    assert seen == [(503, "tired", b"<html>"), (200, None, b"data: "), (200, None, b'{"id":')]


def test_an_unknown_path_is_not_found(threaded: ThreadedLoopback) -> None:
    """A base URL without /v1 gets a 404 in OpenAI's shape, and is remembered without an endpoint."""
    status, body = ask(threaded, "POST", "/chat/completions", "{}", JSON)

    assert (status, json.loads(body)["error"]["type"]) == (404, "invalid_request_error")
    assert threaded.requests[0].endpoint is None


def test_a_body_that_is_too_large_is_refused(threaded: ThreadedLoopback) -> None:
    """A declared length over the bound gets 413 before any of it is read."""
    with socket.create_connection(("127.0.0.1", threaded.port), timeout=LONGEST) as client:
        client.sendall(
            f"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY + 1}\r\n\r\n".encode()
        )
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 413") and threaded.requests == []


def test_a_head_that_is_too_large_is_refused(threaded: ThreadedLoopback) -> None:
    """More than 64 KiB of headers get 431."""
    with socket.create_connection(("127.0.0.1", threaded.port), timeout=LONGEST) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 70_000 + b"\r\n\r\n")
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 431")


def test_a_refresh_is_granted_by_default(threaded: ThreadedLoopback) -> None:
    """Without a script the token endpoint grants, and remembers the refresh token as the key."""
    status, granted = refresh(threaded, "r-0")

    assert (status, granted["token_type"], granted["expires_in"]) == (200, "Bearer", 3600)
    assert granted["access_token"] and granted["refresh_token"] != "r-0"
    assert [one.key for one in threaded.received(Endpoint.TOKEN)] == ["r-0"]


def test_scripted_tokens_and_token_errors(threaded: ThreadedLoopback) -> None:
    """A script can grant one login and refuse another."""
    threaded.script(
        Endpoint.TOKEN, Reply.tokens(access_token="a", refresh_token="r", expires_in=60), key="good"
    )
    threaded.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"), key="bad")

    assert refresh(threaded, "good") == (
        200,
        {"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "expires_in": 60},
    )
    assert refresh(threaded, "bad") == (401, {"error": "invalid_grant"})


@pytest.mark.parametrize(
    ("body", "error"),
    [("grant_type=refresh_token", "invalid_request"), ("grant_type=password", "unsupported_grant_type"),
     ("", "invalid_request")],
)  # fmt: skip
def test_a_refresh_that_is_malformed_is_refused(threaded: ThreadedLoopback, body: str, error: str) -> None:
    """What RFC 6749 forbids gets its error."""
    status, answer = ask(
        threaded, "POST", "/oauth/token", body, {"content-type": "application/x-www-form-urlencoded"}
    )

    assert (status, json.loads(answer)["error"]) == (400, error)


@pytest.mark.parametrize(("revoke", "later"), [(False, 200), (True, 401)])
def test_a_single_use_refresh_token_is_not_exchanged_twice(revoke: bool, later: int) -> None:
    """Reuse is answered with refresh_token_reused; if asked for, the whole login is revoked by it."""
    with ThreadedLoopback(single_use=True, revoke_on_reuse=revoke) as server:
        _, granted = refresh(server, "r-0")
        status, refused = refresh(server, "r-0")
        after, _ = refresh(server, granted["refresh_token"])

    assert (status, refused["error"]["code"]) == (401, "refresh_token_reused")
    assert after == later


def test_a_refresh_whose_answer_was_lost_is_spent() -> None:
    """A cut answer to a refresh used the token up all the same."""
    with ThreadedLoopback(single_use=True) as server:
        server.script(Endpoint.TOKEN, Reply.tokens(access_token="a", refresh_token="r-1").cut())
        with pytest.raises(http.client.RemoteDisconnected):
            refresh(server, "r-0")
        status, _ = refresh(server, "r-0")

    assert status == 401


def test_waiting_for_requests_from_another_thread(threaded: ThreadedLoopback) -> None:
    """`wait_received` returns what has come, and raises TimeoutError for what does not come."""
    ask(threaded, "GET", "/v1/models")

    assert [one.path for one in threaded.wait_received(1, endpoint=Endpoint.MODELS)] == ["/v1/models"]
    with pytest.raises(TimeoutError):
        threaded.wait_received(2, within=0.05)


def test_a_stopped_server_comes_back_on_its_port(threaded: ThreadedLoopback) -> None:
    """Refused while stopped, the same address answers after a new start; requests are kept."""
    with pytest.raises(TimeoutError):
        threaded.wait_received(1, within=0.01)
    address = threaded.base_url

    threaded.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(threaded, "GET", "/v1/models")
    threaded.start()

    assert ask(threaded, "GET", "/v1/models")[0] == 200
    assert threaded.base_url == address and len(threaded.wait_received(1)) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "localhost", "::", ""])
def test_only_loopback_is_listened_on(host: str) -> None:
    """Any host but a literal loopback address is refused."""
    with pytest.raises(ValueError, match="loopback"):
        Loopback(host)
