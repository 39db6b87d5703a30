"""How many requests of this process may be under way to one provider at once (`max_concurrency`)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobs import clock
from jobs.attempt import Wait
from jobs.names import ProviderName
from jobs.providers.registry import Provider


class Gates:
    """One gate for each provider that has a limit, first come, first served; others pass freely."""

    def __init__(self) -> None:
        self._gates: dict[tuple[ProviderName, int], asyncio.Semaphore] = {}

    def full(self, provider: Provider) -> bool:
        """Say whether somebody who comes now has to wait."""
        limit = provider.max_concurrency
        gate = self._gates.get((provider.name, limit)) if limit is not None else None
        return gate is not None and gate.locked()

    @asynccontextmanager
    async def through(self, provider: Provider) -> AsyncIterator[Wait]:
        """Hold a place while the body runs; yields what was waited for it. The caller bounds the wait."""
        limit = provider.max_concurrency
        if limit is None:
            yield Wait()
            return
        gate = self._gates.setdefault((provider.name, limit), asyncio.Semaphore(limit))
        if not gate.locked():
            async with gate:
                yield Wait()
            return
        started = clock.monotonic()
        async with gate:
            yield Wait(clock.monotonic() - started, f"max_concurrency of {provider.name} was reached")
