"""Calls that may hang for ever (a name server, a disk of another machine), made beside the loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Makes blocking calls in threads of their own, `most` at once, which hold up neither others nor the end.

    The threads of `asyncio.to_thread` serve everybody, and are waited for as the process ends. Whoever gives
    up waiting leaves the call behind; it counts among the `most` until it returns.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Return what a function returns, or raise what it raises."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            self._free.release()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, error = None, None
            try:
                result = function(*args)
            except Exception as exc:  # it is raised where the call was made
                error = exc
            with suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=work, name="aside", daemon=True).start()
        except RuntimeError:  # no thread can be started
            self._free.release()
            raise
        return await done
