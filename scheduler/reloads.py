"""A daemon's reloads: one at a time, told to the service manager and to whoever reads figures, and logged."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from jobs import clock
from jobs.errors import ConfigError, Unavailable
from scheduler.metrics import Metrics
from scheduler.reload import Reloaded
from scheduler.sd_notify import Notifier

logger = logging.getLogger(__name__)


class Reloads:
    """Has the configuration read again: `apply` does it, or raises ConfigError with all that is wrong.

    `stopping` says whether the daemon drains; `standing` says in words how it stands.
    """

    def __init__(
        self,
        apply: Callable[[], Awaitable[Reloaded]],
        *,
        notifier: Notifier,
        metrics: Metrics,
        stopping: Callable[[], bool],
        standing: Callable[[], str],
    ) -> None:
        self._apply, self._notifier, self._metrics = apply, notifier, metrics
        self._stopping, self._standing = stopping, standing
        self._one = asyncio.Lock()
        self._begun: set[asyncio.Task[Reloaded]] = set()

    async def reload(self) -> Reloaded:
        """Reload, after those that were asked for before; one that has faults changes nothing.

        Raises Unavailable when the daemon stops, or when the disk of a file that is needed gives no answer.
        """
        async with self._one:
            if self._stopping():
                raise Unavailable("the daemon is stopping; what it starts with next time is read then")
            self._notifier.reloading(monotonic_usec=int(clock.monotonic() * 1_000_000))
            try:
                done = await self._apply()
            except ConfigError as exc:
                done = Reloaded(faults=exc.faults)
                for fault in exc.faults:
                    logger.error("not reloaded: %s", fault)
            except Unavailable:
                self._metrics.reloaded(ok=False, at=clock.utcnow())
                raise
            finally:
                self._notifier.ready(self._standing())
            self._metrics.reloaded(ok=done.ok, at=clock.utcnow())
            if done.ok:
                logger.info("reloaded: %s", done)
            return done

    def begin(self) -> None:
        """Reload in a task of its own; what comes of it is logged."""
        task = asyncio.create_task(self.reload(), name="reload")
        self._begun.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """End those that were begun and have not ended."""
        for task in tuple(self._begun):
            task.cancel()

    def _ended(self, task: "asyncio.Task[Reloaded]") -> None:
        self._begun.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._stopping():
            logger.error("the reload has failed, and nothing was changed: %r", task.exception())
