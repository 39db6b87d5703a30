"""Commands carried out for others: by a `promptd` of the daemon's user, on the caller's descriptors."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import Busy, Unavailable
from scheduler.control_protocol import TERMINAL

AT_ONCE = 16
GRACE = 10.0
_LONGEST_FACT = 200
_LAUNCHER = "scheduler.cli.carried"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be carried out. The words of the command lie in a file, so that no process list shows them.

    The descriptors are the caller's own; `given` are files that he has opened for the command.
    """

    stdin: int
    stdout: int
    stderr: int
    directory: int
    words: int
    given: tuple[int, ...]
    terminal: Mapping[str, str]

    @classmethod
    def of(cls, descriptors: Sequence[int], terminal: object) -> "Errand":
        """Return the errand of a message; raises ValueError when something is missing."""
        if len(descriptors) < 5 or not isinstance(terminal, dict):
            raise ValueError("a command comes with five file descriptors and the facts of its terminal")
        facts = {name: str(terminal[name])[:_LONGEST_FACT] for name in TERMINAL if name in terminal}
        stdin, stdout, stderr, directory, words, *given = descriptors
        return cls(stdin, stdout, stderr, directory, words, tuple(given), facts)


class Children:
    """The processes that carry out commands: a bounded number, and none outlives the daemon.

    Those that wait for providers or people have places of their own, so that they keep nobody from looking.
    """

    def __init__(self, environ: Mapping[str, str], *, at_once: int = AT_ONCE) -> None:
        self._environ = {name: value for name, value in environ.items() if name not in TERMINAL}
        self._running: set[Child] = set()
        self._at_once = at_once
        self._places = {True: at_once, False: at_once}
        self._closing = False

    async def start(self, errand: Errand, config: Path, in_force: bytes, *, waits: bool) -> "Child":
        """Start one command on the daemon's configuration; raises Busy when there are too many already.

        `in_force` is what that says, as `Verbs.in_force` returns it. Raises Unavailable once the daemon ends
        what it carries out.
        """
        if self._closing:
            raise Unavailable("the daemon is stopping; ask again when it has ended, or when it runs")
        if not self._places[waits]:
            raise Busy(f"{self._at_once} commands are carried out already; try again when one has ended")
        self._places[waits] -= 1
        try:
            child = Child(await self._process(errand, config, in_force), waits)
        except BaseException:
            self._places[waits] += 1
            raise
        self._running.add(child)
        return child

    async def ended(self, child: "Child") -> int:
        """Wait for the end of a command and return its exit code, as a shell would tell it."""
        try:
            code = await child.process.wait()
        finally:
            if child.process.returncode is not None and child in self._running:
                self._running.remove(child)
                self._places[child.waits] += 1
        return 128 - code if code < 0 else code

    async def end(self, child: "Child") -> None:
        """End one command: it may tidy up for ten seconds, then it is killed."""
        child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE):
                await child.process.wait()
        except TimeoutError:
            logger.warning("a carried command did not end within %d s and was killed", GRACE)
            child.kill()
        await self.ended(child)

    async def drain(self, within: float) -> None:
        """Start nothing more, and wait for what runs."""
        self._closing = True
        waits = [asyncio.create_task(child.process.wait()) for child in self._running]
        if waits:
            _, late = await asyncio.wait(waits, timeout=within)
            for wait in late:
                wait.cancel()

    async def end_all(self) -> None:
        """End every command."""
        await asyncio.gather(*(self.end(child) for child in tuple(self._running)))

    async def _process(self, errand: Errand, config: Path, in_force: bytes) -> asyncio.subprocess.Process:
        with _memory(in_force) as handed:
            numbers = [handed, errand.directory, errand.words, *errand.given]
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _LAUNCHER),
                *(str(os.getpid()), str(config), *map(str, numbers)),
                stdin=errand.stdin,
                stdout=errand.stdout,
                stderr=errand.stderr,
                pass_fds=numbers,
                env={**self._environ, **errand.terminal},
                start_new_session=True,
            )


@contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """Give a file in memory, at its beginning."""
    with open(os.memfd_create("promptd", os.MFD_CLOEXEC), "w+b") as stream:
        stream.write(content)
        stream.seek(0)
        yield stream.fileno()


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """One command that is being carried out."""

    process: asyncio.subprocess.Process
    waits: bool

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on; one that has ended hears nothing."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it with everything in its session that it has started and not ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
