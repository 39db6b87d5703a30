"""A receiver of webhooks in a thread of its own, for tests that wait for other processes."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.hostile import Way
from support.http_peer import HttpPeer


@contextmanager
def receiving(*ways: Way) -> Iterator[HttpPeer]:
    """Give a peer that answers the first request by the first way, and so on; the last way stays."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="receiver")
    thread.start()
    peer = HttpPeer(*ways)
    try:
        asyncio.run_coroutine_threadsafe(peer.__aenter__(), loop).result(60)
        yield peer
    finally:
        asyncio.run_coroutine_threadsafe(peer.__aexit__(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
