"""Calls that may hang for ever (a name server, a disk of another machine), made beside the loop."""

import asyncio
import errno
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar, cast

T = TypeVar("T")
MOST = 256


class Aside:
    """Makes blocking calls in threads of their own, one of each key at a time.

    They hold up neither others nor the end: the threads of `asyncio.to_thread` serve everybody, and are
    waited for as the process ends. Whoever gives up waiting leaves the call behind, which keeps its key until
    it returns: what hangs costs one thread, however often it is tried, and all together cost `most`.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._under_way: dict[Hashable, asyncio.Future[Any]] = {}

    async def call(self, key: Hashable, function: Callable[..., T], *args: object) -> T:
        """Return what a function returns, or raise what it raises.

        Raises BlockingIOError at once, and calls nothing, while an earlier call with this key is under way.
        """
        if key in self._under_way:
            raise BlockingIOError(errno.EAGAIN, "an earlier try still hangs")
        return await self.share(key, function, *args)

    async def share(self, key: Hashable, function: Callable[..., T], *args: object) -> T:
        """Do as `call` does, but wait for what an earlier call with this key returns, where there is one."""
        done = self._under_way.get(key) or self._begun(key, function, args)
        return cast("T", await asyncio.shield(done))

    def _begun(
        self, key: Hashable, function: Callable[..., T], args: tuple[object, ...]
    ) -> "asyncio.Future[T]":
        """Begin a call; raises BlockingIOError where there are too many."""
        if len(self._under_way) >= self._most:
            raise BlockingIOError(errno.EAGAIN, f"{self._most} others hang")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(asyncio.Future.exception)  # nobody may wait for it any more

        def settle(result: T | None, error: Exception | None) -> None:
            del self._under_way[key]
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(cast("T", result))

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
        except RuntimeError as exc:
            raise BlockingIOError(errno.EAGAIN, "no thread can be started") from exc
        self._under_way[key] = done
        return done
