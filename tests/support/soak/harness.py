"""One soak: lives of a daemon with reloads good and bad, ended by SIGTERM or SIGKILL; then the books."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.providers.loopback_thread import ThreadedLoopback
from support.soak import books
from support.soak.faults import Receiver, providers, receiving
from support.soak.vitals import Life, Signs, life_of, look
from support.soak.world import ENVIRON, World

PROMPTD = Path(sys.executable).with_name("promptd")
LOOKS_EVERY = 0.5
PATIENCE = 180.0
LONGEST_LIFE = 600.0
FEWEST_LIVES = 3
SETTLES_WITHIN = 120.0
MOST_SHOWN = 20
READY, REFUSED, RELOADED = "ready: ", "not reloaded", "reloaded: "
RELOADS = ((0.4, True), (0.6, False), (0.8, True))
"""When in a life, and whether the configuration can be used."""


@dataclass
class Soak:
    """A soak under way; `wrong` is all that must not be."""

    world: World
    provider: ThreadedLoopback
    lives: list[Life] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reloads: int = 0
    ready_after: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """What all lives have written."""
        return self.world.directory / "daemon.log"

    def live(self, seconds: float, ending: signal.Signals) -> None:
        """Run a daemon for so long."""
        with self._daemon() as process:
            since, looks, reloads = time.monotonic(), list[Signs](), list(RELOADS)
            while (at := time.monotonic() - since) < seconds or reloads:
                if reloads and at > reloads[0][0] * seconds:
                    self._reload(process, good=reloads.pop(0)[1])
                looks.extend(self._look(process, at))
                time.sleep(LOOKS_EVERY)
            self._end(process, ending)
        self.lives.append(life_of(looks, ended=ending.name, warm_after=seconds / 3))

    def settle(self) -> None:
        """Let a daemon that begins nothing new bring runs and deliveries to their end."""
        self.world.configure(enabled=False)
        with self._daemon() as process:
            give_up = time.monotonic() + SETTLES_WITHIN
            while books.open_work(self.world.database) and time.monotonic() < give_up:
                time.sleep(LOOKS_EVERY)
            self._end(process, signal.SIGTERM)
        if left := books.open_work(self.world.database):
            self.wrong.append(f"{left} runs and deliveries have not ended {SETTLES_WITHIN:g} s later")

    def _look(self, process: "subprocess.Popen[bytes]", at: float) -> Iterator[Signs]:
        signs = look(process.pid, at, database=self.world.database)
        if process.poll() is not None:
            raise AssertionError(f"the daemon has ended with {process.returncode}; see {self.log}")
        if signs is not None:
            yield signs

    def _reload(self, process: "subprocess.Popen[bytes]", *, good: bool) -> None:
        self.reloads += 1
        told = f'"{RELOADED if good else REFUSED}'
        before = self._said(told)
        self.world.configure(self.reloads, good=good)
        process.send_signal(signal.SIGHUP)
        self._heard(told, more_than=before)
        if not good:
            self.world.configure(self.reloads)

    def _end(self, process: "subprocess.Popen[bytes]", ending: signal.Signals) -> None:
        if ending is signal.SIGKILL:
            self._wait(lambda: self.provider.in_flight > 0, "asks its provider nothing")
        process.send_signal(ending)
        code, wanted = process.wait(PATIENCE), -ending if ending is signal.SIGKILL else 0
        if code != wanted:
            self.wrong.append(f"{ending.name} ended a daemon with {code}")

    @contextmanager
    def _daemon(self) -> Iterator["subprocess.Popen[bytes]"]:
        since = time.monotonic()
        before = self._said(READY)
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [str(PROMPTD), "--config", str(self.world.config), "start"],
                env={"PATH": os.environ["PATH"], "HOME": str(self.world.directory), **ENVIRON},
                stdout=out,
                stderr=out,
            )
        try:
            self._heard(READY, more_than=before)
            self.ready_after.append(round(time.monotonic() - since, 2))
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE)

    def _said(self, words: str) -> int:
        return self.log.read_text("utf-8", "replace").count(words) if self.log.exists() else 0

    def _heard(self, words: str, *, more_than: int) -> None:
        self._wait(lambda: self._said(words) > more_than, f"does not say {words!r}")

    def _wait(self, come: Callable[[], bool], otherwise: str) -> None:
        give_up = time.monotonic() + PATIENCE
        while not come():
            if time.monotonic() > give_up:
                raise AssertionError(f"the daemon {otherwise}; see {self.log}")
            time.sleep(0.05)


def soak(directory: Path, *, seconds: float) -> dict[str, Any]:
    """Soak a daemon for so long, all lives together; return figures, with `wrong` empty when all is well."""
    began = time.monotonic()
    with providers() as provider, receiving() as receiver:
        world = World(directory, provider.origin, receiver.origin)
        world.configure()
        under_way = Soak(world, provider)
        lives = max(FEWEST_LIVES, round(seconds / LONGEST_LIFE))
        for number in range(lives):
            under_way.live(seconds / lives, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        under_way.settle()
        _close(under_way, receiver)
        requests = len(provider.requests)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "requests": requests,
        **_figures(under_way, receiver),
        "wrong": under_way.wrong[:MOST_SHOWN],
        "wrong_in_all": len(under_way.wrong),
    }


def _close(under_way: Soak, receiver: Receiver) -> None:
    """Close the books."""
    wrong, world = under_way.wrong, under_way.world
    for number, life in enumerate(under_way.lives, start=1):
        wrong.extend(f"life {number}: {what}" for what in life.wrong())
    audit = subprocess.run(
        [str(PROMPTD), "--config", str(world.config), "audit"],
        env={"PATH": os.environ["PATH"], "HOME": str(world.directory), **ENVIRON},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if audit.returncode != 0:
        wrong.append(f"audit: {audit.stdout}{audit.stderr}")
    wrong.extend(books.wrong_with_deliveries(world.database, receiver))
    with under_way.log.open(encoding="utf-8", errors="replace") as lines:
        wrong.extend(f"unexplained: {line}" for line in books.unexplained(lines))


def _figures(under_way: Soak, receiver: Receiver) -> dict[str, Any]:
    database = under_way.world.database
    grouped = "SELECT {0}, count(*) FROM {1} GROUP BY 1"
    processor = os.times()
    return {
        "lives": [life.shown() for life in under_way.lives],
        "ready_after": under_way.ready_after,
        "reloads": under_way.reloads,
        "runs": dict(books.rows(database, grouped.format("state", "runs"))),
        "attempts": dict(books.rows(database, grouped.format("outcome", "attempts"))),
        "deliveries": dict(books.rows(database, grouped.format("target || ' ' || state", "deliveries"))),
        "webhooks_twice": sum(1 for bodies in receiver.bodies.values() if len(bodies) > 1),
        "lines": dict(Counter(_levels(under_way.log))),
        "processor_seconds": round(processor.children_user + processor.children_system, 1),
        "own_processor_seconds": round(processor.user + processor.system, 1),
    }


def _levels(log: Path) -> Iterator[str]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            _, _, after = line.partition('"level": "')
            yield after.partition('"')[0] or "none"
