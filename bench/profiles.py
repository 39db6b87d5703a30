"""Where time goes: samples of a running process (py-spy), by library and by function of the product."""

import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

RATE = 250  # samples a second
LONGEST = 120  # seconds
MOST = 12
_OURS = ("jobs/", "scheduler/")


@dataclass
class Profile:
    """Shares of the time in which some thread held the interpreter, or why there are none."""

    libraries: list[tuple[str, float]] = field(default_factory=list)
    functions: list[tuple[str, float]] = field(default_factory=list)
    why_not: str = ""

    def as_markdown(self) -> str:
        """Return two lists: by library, without what it calls; by function of the product, with that."""
        if self.why_not:
            return f"No profile: {self.why_not}\n"
        libraries = ", ".join(f"{name} {share:.0%}" for name, share in self.libraries[:MOST])
        lines = [f"- {share:.0%} `{name}`" for name, share in self.functions[:MOST]]
        return "\n".join([f"By library (own time): {libraries}.", "", "Inclusive:", "", *lines, ""])


@contextmanager
def watched(pid: int, spy: str | None) -> Iterator[Profile]:
    """Sample a process while the block runs; the profile is there when it has ended."""
    profile = Profile()
    if spy is None:
        profile.why_not = "py-spy is not installed (`make bench` does that)"
        yield profile
        return
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory) / "raw"
        command = [spy, "record", "--gil", "--format", "raw", "--rate", str(RATE), "--duration", str(LONGEST)]
        sampler = subprocess.Popen(
            [*command, "--output", str(raw), "--pid", str(pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        yield profile
        sampler.send_signal(signal.SIGINT)
        _, said = sampler.communicate(timeout=60)
        if not raw.exists():
            profile.why_not = f"py-spy said: {' '.join(said.split())[:200]}"
            return
        taken = summed(raw.read_text("utf-8").splitlines())
        profile.libraries, profile.functions = taken.libraries, taken.functions


def summed(stacks: Iterable[str]) -> Profile:
    """Sum lines of `frame;frame;… count`, the outermost frame first."""
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        names = [_named(frame) for frame in frames.split(";")]
        own[_library(names[-1][1])] += int(count)
        for name, file in set(names):
            if file.startswith(_OURS):
                inclusive[f"{file} {name}"] += int(count)
    total = sum(own.values()) or 1
    return Profile(_shares(own, total), _shares(inclusive, total))


def _shares(counted: "Counter[str]", total: int) -> list[tuple[str, float]]:
    return [(name, count / total) for name, count in counted.most_common()]


def _named(frame: str) -> tuple[str, str]:
    """Return the function and the file of `function (path/to/file.py:12)`."""
    name, _, place = frame.rpartition(" (")
    return name, place.rstrip(")").rpartition(":")[0] or place.rstrip(")")


def _library(file: str) -> str:
    top = file.partition("/")[0]
    if top in ("jobs", "scheduler"):
        return "promptd"
    return top if "/" in file and top not in _STANDARD and not file.startswith("<") else "python's own"


_STANDARD = frozenset(
    {"asyncio", "concurrent", "json", "logging", "email", "http", "urllib", "importlib", "collections"}
)
