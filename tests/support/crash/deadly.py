"""What kills the process in which it is: a store at one call of a verb, or a count of database statements."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Connection, Engine, event

from jobs.store.store import Store
from support.crash.points import Death, Moment

STEPS_OF_FILES = frozenset({"sqlite3.connect", "os.rename", "os.remove"})


def die() -> NoReturn:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives SIGKILL")


class DeadlyStore(Store):
    """A store that kills its process at one point; until then it is the real one."""

    def __init__(self, url: str, *, death: Death, **options: Any) -> None:
        super().__init__(url, **options)
        self._point, self._left = death.point, death.nth

    async def write(self, verb: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a verb, and die there if this is the call."""
        if not self._is_the_one(verb, args):
            return await super().write(verb, *args, **kwargs)
        match self._point.moment:
            case Moment.BEFORE:
                die()
            case Moment.INSIDE:
                return await super().write(_then_die, verb, *args, **kwargs)
            case Moment.AFTER:
                await super().write(verb, *args, **kwargs)
                die()

    def _is_the_one(self, verb: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        names = {getattr(each, "__name__", "") for each in (verb, *args)}
        if names.isdisjoint(self._point.verbs) or not any(map(self._point.about, (verb, *args))):
            return False
        self._left -= 1
        return self._left == 0


def _then_die(connection: Connection, verb: Callable[..., Any], /, *args: Any, **kwargs: Any) -> NoReturn:
    try:
        verb(connection, *args, **kwargs)
    finally:  # one that refuses its work has its moment too
        die()


class Steps:
    """Counts what this process does to databases: connections, statements, commits, files moved and removed.

    It dies before step number `last`; without one it writes into `told` how many there were.
    """

    def __init__(self, last: int | None, told: Path) -> None:
        self._last, self._told, self._number = last, told, 0

    def begin(self) -> None:
        """Count from now on, for ever."""
        event.listen(Engine, "before_cursor_execute", self._step)
        event.listen(Engine, "commit", self._step)
        sys.addaudithook(self._heard)

    def end(self) -> None:
        """Say how many steps there were."""
        self._told.write_text(str(self._number), "utf-8")

    def _heard(self, name: str, _args: object) -> None:
        if name in STEPS_OF_FILES:
            self._step()

    def _step(self, *_: object) -> None:
        self._number += 1
        if self._number == self._last:
            die()
