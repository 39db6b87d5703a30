"""`/metrics`, `/healthz` and `/readyz`, served in the daemon's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobs.errors import Unavailable
from scheduler.config.settings import Listen
from scheduler.exposition import exposed

STOP_TIMEOUT = 2
Checks = Callable[[], dict[str, bool]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class HttpServer:
    """Serves figures and health. `healthy` and `ready` name what they look at, each with its state."""

    def __init__(
        self,
        listen: Listen,
        *,
        registry: CollectorRegistry,
        refresh: Callable[[], Awaitable[None]],
        healthy: Checks,
        ready: Checks,
    ) -> None:
        self._listen, self._registry, self._refresh = listen, registry, refresh
        self._healthy, self._ready = healthy, ready
        self._task: asyncio.Task[None] | None = None
        self._server: _Server | None = None
        self.port = listen.port

    async def start(self) -> None:
        """Bind and serve; raises Unavailable when the address cannot be had."""
        family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._listen.host, self._listen.port))
        except OSError as exc:
            listener.close()
            raise Unavailable(
                f"cannot listen on {self._listen.host}:{self._listen.port}: {exc.strerror}; "
                "change server.listen, or set it to off"
            ) from exc
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_TIMEOUT,
            limit_concurrency=100,
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
