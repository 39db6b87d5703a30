"""Servers that no honest provider runs: raw sockets, one way to misbehave for each path."""

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from threading import Thread
from typing import Final, Self

CHUNK: Final = 64 * 1024
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
GOOD: Final = json.dumps({"choices": [{"message": {"content": "from a trickle"}, "finish_reason": "stop"}]})
DELTA: Final = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"more "}}]}\n\n'
_TLS_HANDSHAKE: Final = 0x16

Way = Callable[[asyncio.StreamWriter], Awaitable[None]]


def said(answer: bytes) -> Way:
    """Say these bytes and hang up."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return say


def made(answer: Callable[[], bytes]) -> Way:
    """Say large bytes and hang up; they are made when they are asked for."""

    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer())
        await writer.drain()

    return say


def stalled(answer: bytes = b"") -> Way:
    """Say these bytes, then nothing for ever."""

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await asyncio.Event().wait()

    return stall


def held(gate: asyncio.Event, then: Way) -> Way:
    """Say nothing until a gate of this loop is open, and then that."""

    async def hold(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await then(writer)

    return hold


def late(seconds: float, then: Way) -> Way:
    """Say nothing for so long, and then that."""

    async def dawdle(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(writer)

    return dawdle


def endless(head: bytes, piece: bytes, *, pause: float = 0.0) -> Way:
    """Say the head, then the same piece again and again, as fast as it is taken or with a pause."""
    block = piece * max(1, CHUNK // len(piece)) if not pause else piece

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)

    return flood


def trickled(answer: bytes) -> Way:
    """Say an answer, one byte a second."""

    async def trickle(writer: asyncio.StreamWriter) -> None:
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(1)

    return trickle


def with_length(body: bytes, *, length: int | None = None, head: bytes = OK) -> bytes:
    """Return an answer that says its length, or another one."""
    return head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def in_chunks(piece: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def redirect(status: int, location: str) -> bytes:
    """Return an answer that sends the client elsewhere."""
    head = f"HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
    return head.encode()


CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"
MEGABYTE: Final = 1024 * 1024


def _bomb() -> bytes:
    """Return 200 MB of zeros, packed: after a full flush a block is packed as the one before it was."""
    packer, megabyte, check = zlib.compressobj(wbits=-zlib.MAX_WBITS), bytes(MEGABYTE), 0
    block = packer.compress(megabyte) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(200):
        check = zlib.crc32(megabyte, check)
    packed = gzip.compress(b"")[:10] + block * 200 + packer.flush()
    bomb = packed + struct.pack("<II", check, 200 * MEGABYTE)  # RFC 1952, 2.3.1
    return with_length(bomb, head=OK + b"content-encoding: gzip\r\n")


def _thicket() -> bytes:
    return b'{"a": [' + b"[]," * (5 * MEGABYTE) + b"[]], " + GOOD[1:].encode()


STALLS: Final[Mapping[str, Way]] = {
    "silent": stalled(),
    "one-byte-a-second": trickled(with_length(GOOD.encode())),
    "slow-headers": endless(b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n", pause=0.3),
    "slow-body": endless(CHUNKED, in_chunks(b" "), pause=0.3),
    "slow-events": endless(SSE, DELTA, pause=0.3),
    "half-a-head": stalled(b"HTTP/1.1 200 OK\r\nconte"),
    "half-a-body": stalled(with_length(GOOD.encode()[:20], length=500)),
    "a-thousand-continues": stalled(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless-continues": endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "tls": stalled(),
}
"""Servers of which nothing but a deadline rids a client."""

LIES: Final[Mapping[str, Way]] = {
    "endless-headers": endless(b"HTTP/1.1 200 OK\r\n", b"x-more: 1234567890\r\n"),
    "one-endless-header": endless(b"HTTP/1.1 200 OK\r\nx-more: ", b"1234567890"),
    "endless-body": endless(CHUNKED, in_chunks(b" " * 4096)),
    "endless-error": endless(CHUNKED.replace(b"200 OK", b"400 Bad"), in_chunks(b" " * 4096)),
    "200-megabytes": endless(
        with_length(b'{"choices": [{"message": {"content": "', length=200 * MEGABYTE), b"more "
    ),
    "thicket": made(lambda: with_length(_thicket())),
    "thicket-of-an-error": made(lambda: with_length(_thicket(), head=OK.replace(b"200 OK", b"400 Bad"))),
    "gzip-bomb": made(_bomb),
    "broken-gzip": said(with_length(b"\x1f\x8bnonsense", head=OK + b"content-encoding: gzip\r\n")),
    "unknown-packing": said(with_length(b"x", head=OK + b"content-encoding: br\r\n")),
    "no-utf8": said(with_length(bytes(range(256)) * 40)),
    "endless-events": endless(SSE, DELTA),
    "tiny-events": endless(SSE, b"data:{}\n\n"),
    "a-million-events": made(lambda: SSE + b"data:{}\n\n" * (15 * MEGABYTE // 9)),
    "a-million-faults": made(lambda: SSE + b"data:1\n\n" * (15 * MEGABYTE // 8)),
    "a-million-lines": made(lambda: SSE + b"ab\n" * (5 * MEGABYTE)),
    "thicket-in-an-event": made(lambda: SSE + b"data: " + _thicket() + b"\n\n"),
    "one-endless-event": endless(SSE + b"data: ", b"[[],[],"),
    "events-without-end": said(SSE + DELTA * 3),
    "chunks-of-nonsense": said(CHUNKED + b"zzz\r\nhello\r\n0\r\n\r\n"),
    "a-chunk-below-zero": said(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    "shorter-than-it-says": said(with_length(GOOD.encode()[:20], length=500)),
    "two-lengths": said(OK + b"content-length: 5\r\ncontent-length: 500\r\n\r\nhello"),
    "http-1.0-nonsense": said(b"HTTP/1.0 abc\r\n\r\nhello"),
    "no-http": said(b"\x00\xff\x13\x37 220 smtp.example.org ESMTP\r\n" * 20),
    "hangs-up": said(b""),
    "switches-protocols": said(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    ),
}
"""Servers that answer what is no answer."""


class HostileServer:
    """Serves every way at `/<way>/…` until the block ends; `url(way)` is a provider's base URL."""

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self._ways = dict(ways)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="hostile", daemon=True)
        self._serving = set[asyncio.Task[None]]()
        self._writers: list[asyncio.StreamWriter] = []
        self.asked: list[tuple[str, bytes]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(60)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def url(self, way: str) -> str:
        """Return the base URL of a provider that behaves so."""
        scheme = "https" if way == "tls" else "http"
        return f"{scheme}://127.0.0.1:{self.port}/{way}/v1"

    def add(self, way: str, behaviour: Way) -> None:
        """Serve one way more."""
        self._ways[way] = behaviour

    async def _end(self) -> None:
        self._server.close()
        await all_served()
        while self._serving:
            for each in self._serving:
                each.cancel()
            await asyncio.sleep(0)
        hang_up(self._writers)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.append(writer)
        try:
            head = await _head(reader)
            way = head.split(b" ")[1].decode("latin-1").split("/")[1] if b" " in head else "tls"
            self.asked.append((way, head))
            await self._ways[way](writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test has ended
        finally:
            self._serving.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()


async def all_served() -> None:
    """Let what was accepted come as far as to be served: else nobody would close it."""
    for _ in range(5):
        await asyncio.sleep(0)


def hang_up(writers: Iterable[asyncio.StreamWriter]) -> None:
    """Close connections though nobody has taken all that was said: the loop may end before he does."""
    for writer in writers:
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Return the head of a request once its body is read too; what begins with TLS is returned at once."""
    first = await reader.readexactly(1)
    if first[0] == _TLS_HANDSHAKE:
        return first
    head = first + await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return head
