"""(f), (g): the installed daemon: start to ready, memory, and how long it takes to serve its figures."""

import os
import tempfile
from pathlib import Path
from statistics import median

from bench import daemons, product
from bench.figures import Figure
from bench.peers import Peers
from bench.profiles import Profile, watched

SIZES = (10, 1_000, 10_000)
STARTS = 3
SCRAPED_JOBS = 1_000
RUNS_EACH = 100
SCRAPES = 20
_MEGABYTE = 1024 * 1024


def measure() -> list[Figure]:
    """Return start-up and memory for each number of schedules; targets stand for the largest."""
    figures = []
    for jobs in SIZES:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            daemons.configure(directory, jobs=jobs)
            first, *later = [_start(directory) for _ in range(1 + STARTS)]
        largest = jobs == SIZES[-1]
        took = median(each.seconds for each in later)
        weight = max(each.most_resident for each in (first, *later)) / _MEGABYTE
        on_new = f"{first.seconds:.2f} s on a new database"
        words = f"start to ready, {jobs:,} schedules"
        figures.append(Figure("f", words, took, " s", on_new, most=2 if largest else None))
        words = f"memory when ready, {jobs:,} schedules"
        figures.append(Figure("f", words, weight, " MB", most=120 if largest else None))
    return figures


def measure_scrapes() -> list[Figure]:
    """Return the time of a scrape with many jobs and a ledger that has grown."""
    with tempfile.TemporaryDirectory() as name:
        port = _grown(Path(name))
        with daemons.started(Path(name)):
            daemons.scrape(port)
            times = sorted(daemons.scrape(port) for _ in range(SCRAPES))
    words = f"a scrape with {SCRAPED_JOBS:,} jobs and {RUNS_EACH * SCRAPED_JOBS:,} runs in the ledger"
    here = f"max {times[-1] * 1000:.0f} ms"
    return [Figure("g", words, median(times) * 1000, " ms", here, most=80)]


def profile_scrapes(peers: Peers) -> Profile:
    """Return where scrapes spend their time."""
    with tempfile.TemporaryDirectory() as name:
        port = _grown(Path(name))
        with daemons.started(Path(name)) as daemon, watched(daemon.pid, peers.spy) as taken:
            for _ in range(SCRAPES):
                daemons.scrape(port)
    return taken


def profile(peers: Peers) -> Profile:
    """Return where a start with many schedules spends its time, from the moment it can be looked at."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        daemons.configure(directory, jobs=SIZES[-1])
        _start(directory)
        with daemons.launched(directory) as launch, watched(launch.process.pid, peers.spy) as taken:
            launch.wait_until_ready()
    return taken


def _start(directory: Path) -> daemons.Started:
    with daemons.started(directory) as found:
        return found


def _grown(directory: Path) -> int:
    """Configure many jobs on a ledger with many runs; return the port of the figures."""
    port = daemons.configure(directory, jobs=SCRAPED_JOBS)
    product.fill_ledger(directory / "promptd.yaml", runs_each=RUNS_EACH, environ=os.environ)
    return port
