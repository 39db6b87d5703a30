"""(d): how late instants are claimed, with 10,000 schedules, beside APScheduler alone."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure, in_ms, percentile
from bench.peers import Peers, ours
from bench.profiles import Profile, watched

SECONDS = {"steady": 25, "idle": 25, "together": 25}
WORDS = {
    "steady": "200 of 10,000 due each second",
    "idle": "1 of 10,000 due each second",
    "together": "10,000 due in one second",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """How late each claim was, in seconds, and how many instants were dropped."""

    late: list[float]
    dropped: int

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Heard":
        """Read what a measured program printed."""
        return cls(said["late"], said["dropped"])

    def at(self, share: float) -> float:
        """Return a percentile in milliseconds."""
        return percentile(self.late, share) * 1000

    def __str__(self) -> str:
        if not self.late:
            return f"none ran, {self.dropped} dropped"
        p50, p99, most = (in_ms(percentile(self.late, share)) for share in (0.5, 0.99, 1))
        return f"p50 {p50}, p99 {p99}, max {most}, {self.dropped} dropped"


def measure() -> list[Figure]:
    """Return the figures of all three loads, one after the other."""
    found = {
        which: (_heard("daemon_lateness", which), _heard("apscheduler_lateness", which)) for which in WORDS
    }
    targets = (("steady", 0.99, "p99", 100), ("idle", 0.99, "p99", 10), ("together", 1.0, "max", 1000))
    figures = []
    for which, share, name, most in targets:
        here, beside = found[which]
        words = f"lateness {name}, {WORDS[which]}"
        figures.append(Figure("d", words, here.at(share), " ms", str(here), str(beside), most=most))
    dropped = [sum(each[place].dropped for each in found.values()) for place in (0, 1)]
    words = "instants dropped, beside APScheduler's defaults"
    figures.append(Figure("d", words, dropped[0], "", str(dropped[0]), str(dropped[1]), most=0))
    return figures


def profile(which: str, peers: Peers) -> Profile:
    """Return where the daemon spends its time under a load, once it is ready."""
    process = subprocess.Popen(
        ours("daemon_lateness", which, str(SECONDS[which])), stdout=subprocess.PIPE, text=True
    )
    with watched(process.pid, peers.spy) as taken:
        process.communicate()
    return taken


def _heard(module: str, which: str) -> Heard:
    done = subprocess.run(
        ours(module, which, str(SECONDS[which])), stdout=subprocess.PIPE, text=True, check=True
    )
    return Heard.of(json.loads(done.stdout.splitlines()[-1]))
