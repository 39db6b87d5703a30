"""A receiver of webhooks: an HTTP server in the loop of a test, which answers as told and keeps it all."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from support.hostile import Way, all_served, hang_up


@dataclass(frozen=True)
class Taken:
    """One request as it came; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status} So", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class HttpPeer:
    """Answers the first request by the first way, and so on; the last way stays."""

    def __init__(self, *ways: Way, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._ways: Sequence[Way] = ways
        self._tls, self._host = tls, host
        self._serving = set[asyncio.Task[None]]()
        self._writers: list[asyncio.StreamWriter] = []
        self.taken: list[Taken] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await all_served()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        hang_up(self._writers)
        await asyncio.sleep(0)

    def url(self, path: str = "/in", *, host: str = "127.0.0.1") -> str:
        """Return a URL of it."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.append(writer)
        self.connections += 1
        way = self._ways[min(self.connections, len(self._ways)) - 1]
        try:
            self.taken.append(await _taken(reader))
            await way(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test has ended
        finally:
            self._serving.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()


async def _taken(reader: asyncio.StreamReader) -> Taken:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines), "a header came twice"
    return Taken(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
