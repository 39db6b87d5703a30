"""Where rounds are played: a world, a provider, processes that live for a while, and what is remembered."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

from support.crash.accounts import judge
from support.crash.memory import Memory, faults_of, opened
from support.crash.outbox import judge_outbox, taken_too_often
from support.crash.points import Death
from support.crash.provider import Provider
from support.crash.receiver import Heard, Receiver
from support.crash.victims import Nursery, Orders, command, daemon
from support.crash.world import ENVIRON, World

PROMPTD = Path(sys.executable).with_name("promptd")
PATIENCE = 90.0
LOOKS_EVERY = 0.1
_names = count(1)


class Ears:
    """Hears what one daemon tells systemd (sd_notify(3)): that it is ready, that it reloads."""

    def __init__(self) -> None:
        self.address = f"@promptd-crash-{os.getpid()}-{next(_names)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind("\0" + self.address[1:])

    def hear(self, word: str, until: float) -> bool:
        """Wait for a word, until a moment of `time.monotonic`; returns whether it came."""
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self._socket], [], [], min(left, 0.5))
            if ready and word in self._socket.recv(4096).decode():
                return True
        return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, what it said, and in how many steps it did its work, if it came to its end."""

    code: int | None
    said: str
    steps: int | None


@dataclass
class Victim:
    """A daemon that is going to be killed.

    `died`: between when it was last seen alive and when it was seen to be dead, by `time.monotonic`.
    """

    process: ForkServerProcess
    ears: Ears
    alive_at: float = field(default_factory=time.monotonic)
    died: tuple[float, float] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it is still there."""
        if self._lives():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def gone(self, within: float) -> bool:
        """Wait for its end; returns whether it came."""
        until = time.monotonic() + within
        while self._lives() and (left := until - time.monotonic()) > 0:
            self.process.join(min(left, LOOKS_EVERY))
        return self.died is not None

    def _lives(self) -> bool:
        looks = time.monotonic()
        if self.process.is_alive():
            self.alive_at = looks
        elif self.died is None:
            self.died = self.alive_at, time.monotonic()
        return self.died is None

    def bury(self) -> int:
        """Kill it if it still lives, and return how it ended."""
        self.kill()
        self.gone(PATIENCE)
        self.ears.close()
        assert self.process.exitcode is not None, "a process has survived SIGKILL"
        return self.process.exitcode


@dataclass
class Stage:
    """One world and everybody in it. `wrong` is all that must not be; `killed` counts deaths by point.

    `ends` are when processes have died: between two moments of `time.monotonic` each.
    """

    world: World
    provider: Provider
    receiver: Receiver
    random: Random
    nursery: Nursery = field(default_factory=Nursery)
    memory: Memory = field(default_factory=Memory)
    killed: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    audits: list[str] = field(default_factory=list)
    variant: int = 0
    at: str = "before the first round"
    told: set[str] = field(default_factory=set)
    ends: list[tuple[float, float]] = field(default_factory=list)

    def orders(self, name: str, **told: str) -> Orders:
        """Return orders for a process of this world."""
        log = self.world.directory / f"{name}.log"
        return Orders(self.world.config, log, {**ENVIRON, "HOME": str(self.world.directory), **told})

    @contextmanager
    def daemon(self, death: Death | None = None) -> Iterator[Victim]:
        """Start a daemon; whoever still lives at the end of the block is killed."""
        ears = Ears()
        orders = replace(self.orders("daemon", NOTIFY_SOCKET=ears.address), death=death)
        victim = Victim(self.nursery.start(daemon, orders), ears)
        try:
            yield victim
        finally:
            code = victim.bury()
            self.ends += [victim.died] if victim.died else []
            if code not in (0, -signal.SIGKILL):
                self.complain(f"a daemon has ended with {code}; see daemon.log")

    def command(self, *words: str, last: int | None = None) -> "Ended":
        """Do a command in a process of its own, which dies before step `last` of its work with databases."""
        orders, told = self.orders("command"), self.world.directory / "steps"
        for left in (orders.log, told):
            left.unlink(missing_ok=True)
        process = self.nursery.start(command, orders, words, last, told)
        process.join(4 * PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join(PATIENCE)
        said = orders.log.read_text("utf-8", "replace") if orders.log.exists() else ""
        return Ended(process.exitcode, said, int(told.read_text("utf-8")) if told.exists() else None)

    def installed(self, *words: str) -> "subprocess.Popen[str]":
        """Start the installed command."""
        return subprocess.Popen(
            [str(PROMPTD), "--config", str(self.world.config), *words],
            cwd=self.world.directory,
            env={**ENVIRON, "PATH": os.environ["PATH"], "HOME": str(self.world.directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def complain(self, *wrong: str) -> None:
        """Say what is wrong, once, and when it was first seen."""
        self.wrong += [f"{self.at}: {each}" for each in wrong if each not in self.told]
        self.told |= set(wrong)

    def note(self, point: str, *, reached: bool) -> None:
        """Count a death at a point, or that it was waited for in vain."""
        (self.killed if reached else self.missed)[point] += 1

    def heard(self) -> list[Heard]:
        """Return all that has arrived anywhere."""
        return [*self.receiver.heard, *self.world.heard()]

    def look(self) -> None:
        """See after a round that the file is sound, and that nothing final has changed."""
        self.complain(*faults_of(self.world.database))
        with opened(self.world.database) as connection:
            self.complain(*self.memory.look(connection))

    def close_the_books(self, *, settled: bool = False) -> None:
        """Match the ledger with what was asked, with what arrived and the clock; ask `promptd audit` too."""
        with opened(self.world.database) as connection:
            self.complain(*judge(connection, list(self.provider.said), settled=settled))
            self.complain(*judge_outbox(connection, self.heard(), settled=settled))
        self.complain(*taken_too_often(self.receiver.heard, self.ends))
        audit = self.command("audit")
        self.audits.append(audit.said.strip())
        if audit.code != 0:
            self.complain(f"promptd audit has ended with {audit.code}: {audit.said}")
