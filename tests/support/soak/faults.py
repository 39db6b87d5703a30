"""Whom the soaked daemon talks to: providers that fail in their own ways, and a receiver of webhooks."""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType

from jobs.providers.loopback_replies import Endpoint, Received, Reply, Wire
from jobs.providers.loopback_thread import ThreadedLoopback

_GOOD = Reply.text("answer {number}: " + "all is well, and this takes a few words to say. " * 8)
_REFUSALS = MappingProxyType(
    {
        "busy": Reply.error(429, code="rate_limit_exceeded", headers={"retry-after": "1"}),
        "broken": Reply.error(503),
        "denied": Reply.error(401, code="invalid_api_key"),
    }
)
HANGS_ONCE_IN = 40  # a target takes one delivery at a time, so each of these holds up those behind it
_WAYS = MappingProxyType(
    {"small": _GOOD, "cut": _GOOD.cut(150), "hanging": _GOOD.silent(), "slow": _GOOD.slowly(100, 0.02)}
)


@contextmanager
def providers() -> Iterator[ThreadedLoopback]:
    """Give a server that is every provider: what it does, the model says. Some refuse two of three only."""
    with ThreadedLoopback() as server:
        for model, reply in _WAYS.items():
            server.script(Endpoint.CHAT, reply, model=model)
        for model, refusal in _REFUSALS.items():
            server.script(Endpoint.CHAT, _now_and_then(refusal), model=model)
        yield server


def _now_and_then(refusal: Reply) -> Reply:
    def wire(received: Received) -> Wire:
        return (refusal if received.number % 3 else _GOOD).wire(received)

    return Reply(wire)


class Receiver(ThreadingHTTPServer):
    """Takes webhooks: `/good` at once, `/flaky` at the second try of a key, `/gone` never."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        self.accepted: set[str] = set()
        self.changed = 0
        self.ending = threading.Event()
        self._lock = threading.Lock()

    @property
    def origin(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, path: str, key: str, body: bytes) -> int:
        """Note a request and return the status that answers it; 0: nothing is answered."""
        with self._lock:
            earlier = self.bodies[key]
            self.changed += any(before != body for before in earlier)
            earlier.append(body)
            match path:
                case "/gone":
                    return 410
                case "/flaky" if len(earlier) == 1:
                    return 0 if len(self.bodies) % HANGS_ONCE_IN == 0 else 500 + len(self.bodies) % 4
                case _:
                    self.accepted.add(key)
                    return 204


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Take one webhook."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = self.server.take(self.path, self.headers.get("idempotency-key", ""), body)
        if status:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.server.ending.wait(5)
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver in a thread of its own."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ending.set()
        receiver.shutdown()
        receiver.server_close()
        thread.join(10)
