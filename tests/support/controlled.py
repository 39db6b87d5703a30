"""A control socket with a daemon's verbs behind it, in a loop of its own beside the test."""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.errors import Busy, ConfigError, Fault
from scheduler.config.in_force import handed_over
from scheduler.config.loader import load
from scheduler.control import Control

NOTHING_CHANGED = {
    "ok": True,
    "added": [],
    "changed": [],
    "removed": [],
    "settings": [],
    "waits_for_restart": [],
    "faults": [],
}


@dataclass
class Verbs:
    """The verbs of a daemon that notes what it is asked. `reloads` is what a reload answers.

    `handed` is in force; where it is None, what stands in the file.
    """

    config: Path
    reloads: Mapping[str, Any] = field(default_factory=lambda: NOTHING_CHANGED)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    mine: tuple[int, ...] = ()
    handed: bytes | None = None

    def hello(self) -> Mapping[str, Any]:
        return {"config": str(self.config), "pid": os.getpid(), "version": "1", "drain_timeout": 1.0}

    def in_force(self) -> bytes:
        if self.handed is not None:
            return self.handed
        environ = {"HOME": str(self.config.parent)}
        return handed_over(load(self.config, environ=environ, now=datetime.now(UTC)))

    async def reload(self) -> Mapping[str, Any]:
        self.asked.append(("reload",))
        if self.reloads["faults"] == ["raised"]:
            raise ConfigError([Fault(self.config, 3, 1, "jobs", "is wrong", "mend it")])
        return self.reloads

    async def stop(self, *, now: bool) -> None:
        self.asked.append(("stop", now))

    async def cancel(self, run_id: int) -> bool:
        self.asked.append(("cancel", run_id))
        return run_id in self.mine

    async def wake(self, names: Sequence[str]) -> None:
        self.asked.append(("wake", *names))

    async def run(
        self, job: str, values: Mapping[str, Any], *, retry_of: int | None = None, force: bool = False
    ) -> int:
        if job == "held":
            raise Busy("held is held; try again later")
        self.asked.append(("run", job, dict(values), retry_of, force))
        return 7


@contextmanager
def listening(
    state_dir: Path,
    verbs: Verbs,
    *,
    environ: Mapping[str, str] = os.environ,
    at_once: int = 16,
    drain: float = 0.0,
) -> Iterator[Control]:
    """Give a control that listens, in a thread of its own, until the block ends; then it drains."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="control")
    thread.start()
    control = Control(state_dir, verbs=verbs, environ=environ, at_once=at_once)
    try:
        asyncio.run_coroutine_threadsafe(control.start(), loop).result(60)
        yield control
    finally:
        asyncio.run_coroutine_threadsafe(control.drain(drain), loop).result(drain + 60)
        asyncio.run_coroutine_threadsafe(control.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
