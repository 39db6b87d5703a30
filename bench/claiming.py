"""(e): how many instants are claimed a second on one SQLite file, by one process and by four that race."""

import tempfile
import time
from contextlib import ExitStack
from statistics import median

from bench.contest import Contestant, contestants
from bench.figures import Figure
from bench.peers import Peers, ours
from bench.profiles import Profile, watched

CLAIMS = 1_000
ROUNDS = 3
LEAST = 1_000
LOADS = (
    (1, 1, "claims a second, an instant each, 1 process", LEAST),
    (4, 1, "claims a second, an instant each, 4 processes race for the same", LEAST),
    (1, 50, "instants claimed a second, 50 due together, 1 process", None),
    (4, 50, "instants claimed a second, 50 due together, 4 processes race for the same", None),
)


def measure() -> list[Figure]:
    """Return the figures; each round is of instants that nobody has claimed."""
    return [
        Figure("e", what, median(_rates(processes, together)), " /s", least=least)
        for processes, together, what, least in LOADS
    ]


def profile(peers: Peers) -> Profile:
    """Return where one process that claims alone spends its time."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        (one,) = _racers(stack, directory, 1, 1)
        with watched(one.process.pid, peers.spy) as taken:
            for _ in range(ROUNDS):
                one.round(CLAIMS)
    return taken


def _rates(processes: int, together: int) -> list[float]:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        racers = _racers(stack, directory, processes, together)
        return [_rate(racers) for _ in range(ROUNDS)]


def _rate(racers: list[Contestant]) -> float:
    began = time.perf_counter()
    for racer in racers:
        racer.begin(CLAIMS)
    for racer in racers:
        racer.end(CLAIMS)
    return CLAIMS / (time.perf_counter() - began)


def _racers(stack: ExitStack, directory: str, processes: int, together: int) -> list[Contestant]:
    """Start them one after the other: the first one makes the database."""
    command = ours("claims", directory, str(together))
    return [stack.enter_context(contestants({"one": command}))["one"] for _ in range(processes)]
