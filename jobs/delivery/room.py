"""How much is sent at once: few begin together, and what hangs makes room for the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

AT_ONCE, AT_MOST = 8, 64
STRANGERS_AT_ONCE, STRANGERS_AT_MOST = 6, 48
HANGS_AFTER = 1.0
"""Seconds after which what has not ended counts as hanging: it takes part in `AT_MOST` only."""


class Room:
    """Lets `AT_ONCE` begin together, and `AT_MOST` be under way in all, whatever hangs among them.

    So a burst does not start as many programs as there are targets, and targets that hang hold the others up
    for no longer than it takes to see that. Some places are kept for those who are known to answer: of the
    strangers, `STRANGERS_AT_ONCE` begin together and `STRANGERS_AT_MOST` are under way. So however many hang,
    the others are served; unless more than the rest of the places are taken by such as answered the last
    time and hang now, or somebody is a stranger himself: he waits for his turn among them.
    """

    def __init__(self, *, hangs_after: float = HANGS_AFTER) -> None:
        self._hangs_after = hangs_after
        self._beginning, self._all = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_MOST)
        self._strangers_beginning = asyncio.Semaphore(STRANGERS_AT_ONCE)
        self._strangers = asyncio.Semaphore(STRANGERS_AT_MOST)

    @asynccontextmanager
    async def place(self, *, answers: bool = False) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the block runs; `answers`: of one who is known to answer."""
        async with AsyncExitStack() as place:
            for each in (self._all,) if answers else (self._strangers, self._all):
                await place.enter_async_context(each)
            with ExitStack() as held:
                beginning = (self._beginning,) if answers else (self._strangers_beginning, self._beginning)
                for each in beginning:
                    await each.acquire()
                    held.callback(each.release)
                asyncio.get_running_loop().call_later(self._hangs_after, held.close)
                yield
