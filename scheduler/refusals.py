"""A database that takes no writes: told once when that begins, and once when it is over."""

import logging
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.store.engine import kind_of
from jobs.store.store import Store

_ADVICE = MappingProxyType(
    {
        "full": "free space on its disk",
        "locked": "see which other process holds it",
        "readonly": "make its file, its directory and its file system writable",
        "io": "check its disk, its quota, and that its file system is writable",
        "unreachable": "check that it is there, and that its server runs",
    }
)
_WAITS = "nothing new begins, what is answered waits in memory, and all goes on by itself when that is over"
logger = logging.getLogger(__name__)


class Refusals:
    """Watches what becomes of writes; `say` tells the service manager in words, "" for nothing special."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._since: float | None = None
        self._why = ""

    def tell(self, store: Store) -> None:
        """Tell what has changed since the last call."""
        why = _words(store.refused) if store.refused is not None else ""
        if why == self._why:
            return
        if why:
            self._since = self._since or clock.monotonic()
            logger.error("the database takes no writes: %s; %s", why, _WAITS)
            self._say(f"The database takes no writes: {why}")
        elif self._since is not None:
            lasted = timedelta(seconds=round(clock.monotonic() - self._since))
            logger.warning("the database takes writes again, after %s", lasted)
            self._say("")
            self._since = None
        self._why = why


def _words(refused: Exception) -> str:
    if not isinstance(refused, DBAPIError):
        return str(refused)
    advice = _ADVICE.get(kind_of(refused))
    said = " ".join(str(refused.orig).split())
    return f"{said} ({advice})" if advice else said
