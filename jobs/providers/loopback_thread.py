"""The loopback server on an event loop of its own, for tests and drills that are not asynchronous."""

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any, Self, TypeVar

from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Received, Reply

_START_STOP = 30.0  # seconds

T = TypeVar("T")


class ThreadedLoopback:
    """A `Loopback` in a thread, with the same options; every method may be called from any thread.

    The addresses are known once it is started.
    """

    port: int
    origin: str
    base_url: str
    codex_url: str
    token_url: str
    device_url: str

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        self._loopback = Loopback(host, port, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; raises OSError when the port is taken. After `stop` it takes the same port."""
        if self._loop is not None:
            raise RuntimeError("the loopback server runs already")
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="loopback", daemon=True)
        self._thread.start()
        started = False
        try:
            self._call(self._loopback.start(), _START_STOP)
            started = True
        finally:
            if not started:
                self._end()
        self.port, self.origin = self._loopback.port, self._loopback.origin
        self.base_url, self.codex_url = self._loopback.base_url, self._loopback.codex_url
        self.token_url, self.device_url = self._loopback.token_url, self._loopback.device_url

    def stop(self) -> None:
        """Drop every connection and end the thread; requests stay readable."""
        if self._loop is None:
            return
        try:
            self._call(self._loopback.stop(), _START_STOP)
        finally:
            self._end()

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer."""
        return self._loopback.in_flight

    @property
    def requests(self) -> list[Received]:
        """All that came in, in order of arrival."""
        return self._loopback.requests

    def received(self, endpoint: Endpoint | None = None, key: str | None = None) -> list[Received]:
        """Return the requests to one endpoint, with one key, or both."""
        return self._loopback.received(endpoint, key)

    def script(
        self, endpoint: Endpoint, *replies: Reply, key: str | None = None, model: str | None = None
    ) -> None:
        """Answer such requests with these replies; see `Loopback.script`."""
        self._loopback.script(endpoint, *replies, key=key, model=model)

    def let_go(self) -> None:
        """Answer what is held; see `Loopback.let_go`."""
        if self._loop is None:
            raise RuntimeError("the loopback server does not run: start it first")
        self._loop.call_soon_threadsafe(self._loopback.let_go)

    def wait_received(
        self, number: int, *, endpoint: Endpoint | None = None, key: str | None = None, within: float = 60.0
    ) -> list[Received]:
        """Return such requests as soon as there are `number`; raises TimeoutError after `within` seconds."""
        waiting = self._loopback.wait_received(number, endpoint=endpoint, key=key, within=within)
        return self._call(waiting, within + _START_STOP)

    def _call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the loopback server does not run: start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def _end(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_STOP)
        self._loop.close()
        self._loop = self._thread = None
