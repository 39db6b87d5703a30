"""`/metrics`, `/healthz` and `/readyz`, served in the daemon's own loop."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobs.errors import Unavailable
from scheduler.config.settings import Listen
from scheduler.exposition import exposed

STOP_TIMEOUT = 2
REQUEST_WITHIN = 5.0
"""Seconds that a connection has for its next request, the first one included."""

ANSWER_WITHIN = 30.0
"""Seconds from a request to the end of its answer, and again until the caller has taken that."""

_QUEUE = 128
Checks = Callable[[], dict[str, bool]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class _Bounded(H11Protocol):
    """A connection that ends in time, whatever its caller does: uvicorn waits for a first request for ever.

    Only a whole request, or the end of its answer, gives it more time; single bytes do not.
    """

    request_within: ClassVar[float] = REQUEST_WITHIN
    answer_within: ClassVar[float] = ANSWER_WITHIN
    _end: asyncio.TimerHandle | None = None
    _step: tuple[object, bool] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Begin to count."""
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Count anew where it was a request."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Count anew: the answer is to be taken, and another request may come."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count no more."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        cycle: Any = self.cycle  # None until there is a request
        answering = cycle is not None and not cycle.response_complete
        if self._step == (cycle, answering):
            return
        self._step = (cycle, answering)
        if self._end is not None:
            self._end.cancel()
        busy = answering or self.transport.get_write_buffer_size() > 0
        within = self.answer_within if busy else self.request_within
        self._end = self.loop.call_later(within, self.transport.abort)


class HttpServer:
    """Serves figures and health. `healthy` and `ready` name what they look at, each with its state.

    `request_within` and `answer_within` bound what a connection takes, in seconds.
    """

    def __init__(
        self,
        listen: Listen,
        *,
        registry: CollectorRegistry,
        refresh: Callable[[], Awaitable[None]],
        healthy: Checks,
        ready: Checks,
        request_within: float = REQUEST_WITHIN,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self._listen, self._registry, self._refresh = listen, registry, refresh
        self._healthy, self._ready = healthy, ready
        self._bounds = {"request_within": request_within, "answer_within": answer_within}
        self._task: asyncio.Task[None] | None = None
        self._server: _Server | None = None
        self.port = listen.port

    async def start(self) -> None:
        """Bind and serve; raises Unavailable when the address cannot be had."""
        listener = bound(self._listen)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_TIMEOUT,
            limit_concurrency=100,
            http=type("Bounded", (_Bounded,), self._bounds),
            ws="none",
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")

    async def stop(self) -> None:
        """Finish what is being answered, within two seconds."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await asyncio.wait([self._task], timeout=2 * STOP_TIMEOUT)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._health_of(self._healthy)),
                Route("/readyz", self._health_of(self._ready)),
            ]
        )

    async def _metrics(self, request: Request) -> Response:
        await self._refresh()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await asyncio.to_thread(exposed, self._registry, encode), media_type=content_type)

    def _health_of(self, checks: Checks) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_request: Request) -> Response:
            found = checks()
            return JSONResponse(found, status_code=200 if all(found.values()) else 503)

        return answer


def bound(listen: Listen) -> socket.socket:
    """Return a socket that listens; raises Unavailable when it cannot be had."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((listen.host, listen.port))
        listener.listen(_QUEUE)  # two may bind at once, one may listen
    except OSError as exc:
        listener.close()
        raise Unavailable(
            f"cannot listen on {listen.host}:{listen.port}: {exc.strerror}; {_mend(exc)}"
        ) from exc
    return listener


def is_taken(listen: Listen) -> bool:
    """Say whether another socket has the address."""
    try:
        bound(listen).close()
    except Unavailable as exc:
        return isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE
    return False


def _mend(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there: see `promptd status`, or give server.listen another port"
    return "change server.listen, or set it to off"
