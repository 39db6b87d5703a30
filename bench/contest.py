"""Contests: processes that do the same in turn, round by round, so that a busy moment meets all of them."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

ROUNDS = 5


class Fallen(RuntimeError):
    """A measured process has ended before its time; what it said is on standard error."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one round of one contestant cost, in seconds per call."""

    cpu: float
    wall: float


@dataclass
class Contestant:
    """A measured process that waits for its next round."""

    name: str
    process: "subprocess.Popen[str]"
    spent: list[Spent] = field(default_factory=list)

    def begin(self, calls: int) -> None:
        """Let it make so many calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()

    def end(self, calls: int) -> Spent:
        """Wait until they are made; return what each of them cost."""
        said = self._heard()
        return Spent(said["cpu"] / calls, said["wall"] / calls)

    def round(self, calls: int) -> Spent:
        """Let it make so many calls; return what each of them cost."""
        self.begin(calls)
        return self.end(calls)

    @property
    def cpu(self) -> float:
        """CPU per call, in seconds: the median of all rounds."""
        return median(each.cpu for each in self.spent)

    def wait_until_ready(self) -> None:
        """Return when it says that it may be asked."""
        self._heard()

    def _heard(self) -> Mapping[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Fallen(f"{self.name} ended with {self.process.wait()}")
        heard: Mapping[str, float] = json.loads(line)
        return heard


@contextmanager
def contestants(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Contestant]]:
    """Start each command, and end it with the block; all of them are ready when the block begins."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(_started(name, command)) for name, command in commands.items()}
        for each in started.values():
            each.wait_until_ready()
        yield started


@contextmanager
def _started(name: str, command: Sequence[str]) -> Iterator[Contestant]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Contestant(name, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def compete(
    found: Mapping[str, Contestant], calls: Mapping[str, int], *, warm_up: int, rounds: int = ROUNDS
) -> None:
    """Let everybody make its calls in each round, after a round that is not counted."""
    for name, each in found.items():
        each.round(min(warm_up, calls[name]))
    for _ in range(rounds):
        for name, each in found.items():
            each.spent.append(each.round(calls[name]))
