"""A scripted OpenAI-compatible server on loopback: the provider of the demo, of drills and of tests."""

import asyncio
import socket
import threading
from collections import deque
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import product
from typing import Self, cast

import h11

from jobs import clock
from jobs.providers.loopback_replies import Document, Endpoint, Received, Reply, Wire, json_object
from jobs.providers.loopback_tokens import TokenDesk, token_of

MAX_BODY = 16 * 1024 * 1024
MAX_HEAD = 64 * 1024
_BACKLOG = 2048
_LINGER = 1.0  # seconds in which a client may read why its request was refused
_METHODS = {endpoint: "GET" if endpoint is Endpoint.MODELS else "POST" for endpoint in Endpoint}


class _Connection(asyncio.Protocol):
    """One client: reads requests one after the other, and writes each answer in one piece."""

    def __init__(self, loopback: "Loopback") -> None:
        self._loopback = loopback
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._refused = False
        self.answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # An answer that waits for the client's delayed ACK costs 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loopback.connections.add(self)
        if self._loopback.server is None:  # stopped between accept and now
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._loopback.connections.discard(self)
        if self.answering is not None:
            self.answering.cancel()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._h11.receive_data(data)
        self._read()
        if self.answering is not None and len(self._h11.trailing_data[0]) > MAX_HEAD:
            self.transport.abort()

    def _read(self) -> None:
        try:
            while self._step(self._h11.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._refuse(error)

    def _step(self, event: object) -> bool:
        """Take one event; return False when there is nothing more to read for now."""
        match event:
            case h11.Request():
                self._begin(event)
            case h11.Data():
                self._body += event.data
                self._bound(len(self._body))
            case h11.EndOfMessage():
                self._complete()
            case _:
                return False
        return True

    def _begin(self, request: h11.Request) -> None:
        if sum(len(name) + len(value) for name, value in request.headers) > MAX_HEAD:
            raise h11.RemoteProtocolError("too many headers", 431)
        self._request, self._body = request, bytearray()
        self._bound(int(dict(request.headers).get(b"content-length", 0)))
        if self._h11.they_are_waiting_for_100_continue:
            go_on = self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
            self.transport.write(go_on or b"")

    @staticmethod
    def _bound(size: int) -> None:
        if size > MAX_BODY:
            raise h11.RemoteProtocolError(f"a request has at most {MAX_BODY} bytes", 413)

    def _complete(self) -> None:
        """Decide the answer as the request arrives, so that replies are used in order of arrival."""
        assert self._request is not None
        body, self._body = bytes(self._body), bytearray()
        received = self._loopback.remember(self._request, body)
        reply, wire = self._loopback.answer(received)
        answering = self._answer(reply, *self._framed(wire))
        self.answering = asyncio.get_running_loop().create_task(answering)

    async def _answer(self, reply: Reply, head: bytes, body: bytes) -> None:
        if reply.waits == "to be let go":
            await self._loopback.freed.wait()
        await asyncio.sleep(reply.delay)
        if reply.waits == "for ever":
            await asyncio.Event().wait()
        for number, portion in enumerate(reply.portions(head, body)):
            if number:
                await asyncio.sleep(reply.pause)
            self.transport.write(portion)
        self.answering = self._request = None
        if reply.cut_after is not None or {self._h11.our_state, self._h11.their_state} != {h11.DONE}:
            self.transport.close()
            return
        self._h11.start_next_cycle()
        asyncio.get_running_loop().call_soon(self._read)

    def _framed(self, wire: Wire) -> tuple[bytes, bytes]:
        """Return head and body as they go over the wire; raises LocalProtocolError on a script's lie."""
        head = self._h11.send(h11.Response(status_code=wire.status, headers=list(wire.headers)))
        asked_for_head = self._request is not None and self._request.method == b"HEAD"
        pieces = [] if asked_for_head else [h11.Data(data=piece) for piece in wire.pieces]
        body = b"".join(self._h11.send(event) or b"" for event in [*pieces, h11.EndOfMessage()])
        return head or b"", body

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Say why, and let the client read it: closing with bytes unread would reset the connection."""
        self._refused = True
        wire = Wire.json(error.error_status_hint, {"error": {"message": str(error)}}, {"connection": "close"})
        self.transport.write(b"".join(self._framed(wire)))
        self.transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER, self.transport.abort)


def _codex_refusal(received: Received) -> Reply | None:
    """Return what the Codex backend says to a request that it would not take."""
    asked = received.document()
    faults = {
        "Stream must be set to true": asked.get("stream") is not True,
        "Store must be set to false": asked.get("store") is not False,
        "chatgpt-account-id header is missing": not received.by_name.get("chatgpt-account-id"),
    }
    detail = next((detail for detail, wrong in faults.items() if wrong), None)
    return None if detail is None else Reply.json(400, {"detail": detail})


def _prompt(asked: Document) -> str:
    """Return the text of the last message a user sent, in either shape; empty when there is none."""
    turns = asked.get("input") or asked.get("messages") or ""
    if not isinstance(turns, list):
        return str(turns)
    said = [turn for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    content = said[-1].get("content") if said else ""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


class Loopback:
    """The server. `script`, `requests` and `received` may be used from any thread.

    A request that no script is for gets a good answer. With `single_use` a refresh token can be
    exchanged once: again is `refresh_token_reused`, and with `revoke_on_reuse` all tokens of that
    login are `refresh_token_invalidated` from then on. `keep` bounds how many requests are remembered.
    The addresses are known once it is started; stopped and started again, it takes the same port.
    """

    origin: str
    base_url: str  # with any prefix before /v1, too
    codex_url: str  # the Codex backend's: insists on a stream, on no store, and on an account header
    token_url: str
    device_url: str  # where a device login begins (RFC 8628)

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, single_use: bool = False,
        revoke_on_reuse: bool = False, keep: int | None = None,
    ) -> None:  # fmt: skip
        if not host.startswith("127.") or not IPv4Address(host).is_loopback:
            raise ValueError(f"{host!r} is not loopback: give 127.0.0.1")
        self.host, self.port = host, port
        self._desk = TokenDesk(single_use=single_use, revoke_on_reuse=revoke_on_reuse)
        self._requests: deque[Received] = deque(maxlen=keep)
        self._count = 0
        self._scripts: dict[tuple[Endpoint | None, str | None, str | None], deque[Reply]] = {}
        self._lock = threading.Lock()
        self.connections: set[_Connection] = set()
        self.server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; raises OSError when the port is taken."""
        self._news, self.freed = asyncio.Event(), asyncio.Event()  # of this loop
        listen = asyncio.get_running_loop().create_server
        self.server = await listen(lambda: _Connection(self), self.host, self.port, backlog=_BACKLOG)
        self.port = self.server.sockets[0].getsockname()[1]
        self.origin = f"http://{self.host}:{self.port}"
        self.base_url, self.codex_url = f"{self.origin}/v1", f"{self.origin}/codex"
        self.token_url, self.device_url = f"{self.origin}{Endpoint.TOKEN}", f"{self.origin}{Endpoint.DEVICE}"

    async def stop(self) -> None:
        """Drop every connection, whatever it waits for, and listen no more."""
        server, self.server = self.server, None
        if server is None:
            return
        server.close()
        answering = [one.answering for one in self.connections if one.answering is not None]
        while self.connections:
            for connection in self.connections:
                connection.transport.abort()
            await asyncio.sleep(0)
        await asyncio.gather(*answering, return_exceptions=True)
        await server.wait_closed()

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer."""
        return sum(connection.answering is not None for connection in list(self.connections))

    def script(
        self, endpoint: Endpoint, *replies: Reply, key: str | None = None, model: str | None = None
    ) -> None:
        """Answer such requests with these replies in order, the last one for ever; replaces its like.

        The most specific script wins (key before model); a token endpoint's key is what is exchanged.
        """
        if not replies:
            raise ValueError("a script has at least one reply")
        with self._lock:
            self._scripts[endpoint, key, model] = deque(replies)

    def let_go(self) -> None:
        """Answer what is held, and hold nothing from now on; from the loop of the server only."""
        self.freed.set()

    @property
    def requests(self) -> list[Received]:
        """All that came in, in order of arrival; what was too large or no HTTP is left out."""
        with self._lock:
            return list(self._requests)

    def received(self, endpoint: Endpoint | None = None, key: str | None = None) -> list[Received]:
        """Return the requests to one endpoint, with one key, or both."""
        return [one for one in self.requests if endpoint in (None, one.endpoint) and key in (None, one.key)]

    async def wait_received(
        self, number: int, *, endpoint: Endpoint | None = None, key: str | None = None, within: float = 60.0
    ) -> list[Received]:
        """Return such requests as soon as there are `number`; raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while len(found := self.received(endpoint, key)) < number:
                await self._news.wait()
        return found

    def remember(self, request: h11.Request, body: bytes) -> Received:
        """Keep a request that has fully arrived, and tell those who wait for it."""
        path, _, query = request.target.decode("latin-1").partition("?")
        method, asked = request.method.decode("latin-1"), json_object(body)
        scheme, _, bearer = dict(request.headers).get(b"authorization", b"").decode("latin-1").partition(" ")
        endpoint = next((one for one in Endpoint if path.endswith(one) and _METHODS[one] == method), None)
        raw = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw_items())
        self._count += 1
        received = Received(
            method=method, path=path, headers=raw, body=body, received_at=clock.monotonic(),
            key=bearer.strip() if scheme.lower() == "bearer" else None,
            model=str(asked["model"]) if asked.get("model") else None, endpoint=endpoint, number=self._count,
            prompt=_prompt(asked), query=query,
        )  # fmt: skip
        if endpoint is Endpoint.TOKEN:
            received = replace(received, key=token_of(received))
        with self._lock:
            self._requests.append(received)
        self._news.set()
        self._news = asyncio.Event()
        return received

    def answer(self, received: Received) -> tuple[Reply, Wire]:
        """Decide what is said to a request, and how it is delivered."""
        token = received.key if received.endpoint is Endpoint.TOKEN else None
        reply = self._refusal(received) or self._scripted(received) or self._usual(received)
        wire = reply.wire(received)
        self._desk.settle(token, wire)
        return reply, wire

    def _refusal(self, received: Received) -> Reply | None:
        if received.endpoint is Endpoint.CODEX:
            return _codex_refusal(received)
        return self._desk.refusal(received.key) if received.endpoint is Endpoint.TOKEN else None

    def _scripted(self, received: Received) -> Reply | None:
        with self._lock:
            for key, model in product((received.key, None), (received.model, None)):
                script = self._scripts.get((received.endpoint, key, model))
                if script is not None:
                    return script.popleft() if len(script) > 1 else script[0]
        return None

    def _usual(self, received: Received) -> Reply:
        match received.endpoint:
            case None:
                message = f"Invalid URL ({received.method} {received.path})"
                return Reply.error(404, type="invalid_request_error", message=message)
            case Endpoint.MODELS:
                return Reply.json(200, {"object": "list", "data": [{"id": "loopback", "object": "model"}]})
            case Endpoint.TOKEN:
                return self._desk.grant(received)
            case Endpoint.DEVICE:
                return self._desk.begin(received, self.origin)
            case Endpoint.CHAT | Endpoint.RESPONSES | Endpoint.CODEX:
                return Reply.text("You said: {prompt}")
