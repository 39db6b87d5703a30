"""The receiver of the crash harness: its own list of the webhooks that came, a hand that holds or kills."""

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from support.crash.fuse import Fuse

HOOK, PIPE, INBOX = "hook", "pipe", "inbox"
DELIVERY_HEARD = "a delivery is heard"
REFUSES_ONE_OF = 12
LONGEST_HELD = 600.0  # seconds
_TAKEN, _REFUSED = 204, 503


@dataclass(frozen=True, slots=True)
class Heard:
    """One delivery as it arrived, whether it was taken or refused. What has no key is a file, by its name.

    It is of a run, or one notice of an alert; `text` None: nobody has kept it. `at`: when a webhook came, as
    `time.monotonic` has it.
    """

    target: str
    key: str | None
    run_id: int | None = None
    alert_id: int | None = None
    notice: str | None = None
    text: str | None = None
    taken: bool = True
    at: float | None = None


class Held:
    """The first two requests of one key, each of which waits until somebody says how it is answered."""

    def __init__(self) -> None:
        self.key = ""
        self._came = (threading.Event(), threading.Event())
        self._answers = (queue.SimpleQueue[bool](), queue.SimpleQueue[bool]())
        self._number = 0

    def came(self, place: int, within: float) -> bool:
        """Wait for one of the two; returns whether it came."""
        return self._came[place].wait(within)

    def answer(self, place: int, *, taken: bool) -> None:
        """Let one of the two be answered."""
        self._answers[place].put(taken)

    def place_of(self, key: str) -> int | None:
        """Return which of the two a request is, None where it is another one; the first key is ours."""
        if self.key not in ("", key) or self._number == len(self._came):
            return None
        self.key, self._number = key, self._number + 1
        return self._number - 1

    def wait(self, place: int) -> bool:
        """Say that one of the two is there, and wait for its answer."""
        self._came[place].set()
        with suppress(queue.Empty):
            return self._answers[place].get(timeout=LONGEST_HELD)
        return False


class Receiver:
    """A loopback server that takes webhooks, and refuses some of them when they come for the first time."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.fuse = Fuse()
        self._known: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._held: Held | None = None
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it takes webhooks."""
        return f"http://127.0.0.1:{self._server.server_port}/in"

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Hold the next request, and the one that brings the same key again."""
        held = self._held = Held()
        try:
            yield held
        finally:
            self._held = None
            for place in range(2):
                held.answer(place, taken=False)

    def take(self, key: str, sent: dict[str, Any]) -> bool:
        """Note what has come, and return whether it is taken."""
        came = time.monotonic()
        with self._lock:
            refused = self._known[key] == 0 and int(key, 16) % REFUSES_ONE_OF == 0
            self._known[key] += 1
            held = self._held
            place = held.place_of(key) if held else None
        if held is not None and place is not None:
            refused = not held.wait(place)
        data = sent["data"]
        names = ("run_id", "alert_id", "notice", "text")
        told = {name: data.get(name) for name in names}
        if told["alert_id"] is not None:
            told["run_id"] = None  # a notice may be about a run, and is not of it
        self.heard.append(Heard(HOOK, key, **told, taken=not refused, at=came))
        self.fuse.reach(DELIVERY_HEARD)
        return not refused


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.receiver = receiver


class _Request(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        with suppress(OSError):  # whoever has sent it may be dead by now
            body = self.rfile.read(length)
            if len(body) < length:
                return
            taken = self.server.receiver.take(self.headers["idempotency-key"], json.loads(body))
            self.send_response(_TAKEN if taken else _REFUSED)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing on the terminal."""
