"""A provider that costs next to nothing: raw asyncio on loopback, run as a process of its own.

The path says what is answered: `/ok/50/v1` gives a completion after 50 ms, `/refused/0/v1` a 401 at once.
Whatever follows in the path makes another base URL of it.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

PROMPT = "Summarise what happened since yesterday in three sentences."
MODEL = "small"
_COMPLETION = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1790000000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "All quiet. " * 20, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 17, "completion_tokens": 60, "total_tokens": 77},
    "system_fingerprint": "fp_0123456789",
}
_REFUSAL = {
    "error": {
        "message": "Incorrect API key provided.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
}


def _reply(status: str, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "x-request-id: req_0123456789abcdef\r\nx-ratelimit-limit-requests: 10000\r\n"
        "x-ratelimit-remaining-requests: 9999\r\n\r\n"
    )
    return head.encode() + body


_REPLIES = {b"ok": _reply("200 OK", _COMPLETION), b"refused": _reply("401 Unauthorized", _REFUSAL)}


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (request := self._whole()) is not None:
            _, kind, delay, *_ = request.split(b" ", 2)[1].split(b"/")
            asyncio.get_running_loop().call_later(int(delay) / 1000, self._transport.write, _REPLIES[kind])

    def _whole(self) -> bytes | None:
        """Take one request from what was read, if it is all there; return its head."""
        head, end, rest = self._read.partition(b"\r\n\r\n")
        if not end:
            return None
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return None
        self._read = rest[length:]
        return head


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider as others reach it."""

    port: int

    def answers(self, delay: int) -> str:
        """Return a base URL that answers well after so many milliseconds."""
        return f"http://127.0.0.1:{self.port}/ok/{delay}/v1"

    def refuses(self, delay: int, *, tail: str = "v1") -> str:
        """Return a base URL that answers 401 after so many milliseconds."""
        return f"http://127.0.0.1:{self.port}/refused/{delay}/{tail}"


@contextmanager
def provider() -> Iterator[Provider]:
    """Run the provider until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Provider(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
