"""How much is sent at once: few begin together, and what hangs makes room for the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

AT_ONCE = 8
AT_MOST = 64
HANGS_AFTER = 1.0
"""Seconds after which what has not ended counts as hanging: it takes part in `AT_MOST` only."""


class Room:
    """Lets `AT_ONCE` begin together, and `AT_MOST` be under way in all, whatever hangs among them.

    So a burst does not start as many programs as there are targets, and `AT_ONCE` targets that hang hold the
    others up for no longer than it takes to see that.
    """

    def __init__(self, *, hangs_after: float = HANGS_AFTER) -> None:
        self._hangs_after = hangs_after
        self._beginning, self._all = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_MOST)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the block runs."""
        async with self._all:
            await self._beginning.acquire()
            with ExitStack() as held:
                held.callback(self._beginning.release)
                asyncio.get_running_loop().call_later(self._hangs_after, held.close)
                yield
