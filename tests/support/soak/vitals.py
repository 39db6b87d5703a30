"""A process's vital signs: memory, descriptors, threads; and whether they stay where they were."""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

GROWS_BY, AND_BY = 1.15, 8_000_000
"""How much more memory than after warming up a life may end with: a share, and bytes."""

MORE_DESCRIPTORS, MORE_THREADS = 24, 6
"""What may be under way at one time and not at another; what leaks with each request is hundreds."""

LARGEST_LOG = 32 * 1024 * 1024
"""Bytes of SQLite's write-ahead log; it is cut to 16 MiB after each checkpoint."""

_FACTS = re.compile(r"^(VmRSS|Threads):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Signs:
    """One look: seconds since the daemon was ready, bytes, numbers, and bytes of the write-ahead log."""

    at: float
    memory: int
    descriptors: int
    threads: int
    log: int


def look(pid: int, at: float, *, database: Path) -> Signs | None:
    """Look at a process (proc(5)); None where it has gone."""
    try:
        facts = dict(_FACTS.findall(Path(f"/proc/{pid}/status").read_text("utf-8")))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        log = database.with_name(f"{database.name}-wal")
        size = log.stat().st_size if log.exists() else 0
    except OSError:
        return None
    if "VmRSS" not in facts:
        return None
    return Signs(at, int(facts["VmRSS"]) * 1024, descriptors, int(facts["Threads"]), size)


@dataclass(frozen=True, slots=True)
class Life:
    """One process's life: medians of its vital signs when it was warm and at its end, and the largest log."""

    ended: str
    seconds: float
    looks: int
    memory: tuple[int, int]
    most_memory: int
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    largest_log: int

    def shown(self) -> dict[str, object]:
        """Return it for people."""
        return asdict(self)

    def wrong(self) -> list[str]:
        """Say what has grown."""
        checks = {
            "memory": self.memory[1] <= self.memory[0] * GROWS_BY + AND_BY,
            "descriptors": self.descriptors[1] <= self.descriptors[0] + MORE_DESCRIPTORS,
            "threads": self.threads[1] <= self.threads[0] + MORE_THREADS,
            "largest_log": self.largest_log <= LARGEST_LOG,
        }
        return [f"{name} has grown: {getattr(self, name)}" for name, good in checks.items() if not good]


def life_of(looks: Sequence[Signs], *, ended: str, warm_after: float) -> Life:
    """Return a life: of its looks after so many seconds the first fifth is warm, the last fifth its end."""
    warm = [each for each in looks if each.at >= warm_after]
    fifth = max(1, len(warm) // 5)
    first, last = warm[:fifth], warm[-fifth:]

    def both(name: str) -> tuple[int, int]:
        return (round(median(getattr(e, name) for e in first)), round(median(getattr(e, name) for e in last)))

    return Life(
        ended=ended,
        seconds=round(looks[-1].at, 1),
        looks=len(looks),
        memory=both("memory"),
        most_memory=max(each.memory for each in looks),
        descriptors=both("descriptors"),
        threads=both("threads"),
        largest_log=max(each.log for each in looks),
    )
