"""A fuse: somebody is killed at one moment of what goes by in a server's threads."""

import threading
from collections.abc import Callable


class Fuse:
    """Burns through once, at the nth time that a moment comes after it was laid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._laid: tuple[str, Callable[[], None]] | None = None
        self._left = 0

    def arm(self, moment: str, nth: int, kill: Callable[[], None]) -> None:
        """Call `kill` at this moment, the nth time that it comes from now on."""
        with self._lock:
            self._laid, self._left = (moment, kill), nth

    def disarm(self) -> None:
        """Kill nobody any more."""
        with self._lock:
            self._laid = None

    def reach(self, moment: str) -> None:
        """Say that a moment has come."""
        with self._lock:
            if self._laid is None or self._laid[0] != moment:
                return
            self._left -= 1
            if self._left:
                return
            (_, kill), self._laid = self._laid, None
        kill()
