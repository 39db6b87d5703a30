"""How long after its timeout a run ends, with 1,000 runs in flight at a provider that never answers."""

import sys
import tempfile
from pathlib import Path

from bench.figures import Figure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import crowd
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

RUNS = 1000
TIMEOUT = 5


def measure() -> list[Figure]:
    """Measure once; return the 99th percentile."""
    with tempfile.TemporaryDirectory() as directory, ThreadedLoopback() as provider:
        workplace = Workplace(Path(directory))
        provider.script(Endpoint.CHAT, Reply.text("never said").silent())
        crowd.configure(workplace, provider.base_url, jobs=RUNS, at_once=RUNS, timeout=f"{TIMEOUT}s")
        with workplace.daemon() as daemon:
            runs = crowd.first_runs(workplace, RUNS)
            memory = crowd.peak_memory(daemon) / 1024 / 1024
        late = crowd.past_the_timeout(runs, TIMEOUT)
    words = f"runs past a timeout of {TIMEOUT} s, p99 of {len(late)} in flight"
    here = f"{crowd.distribution(late)}; {memory:.0f} MB at most"
    return [Figure("timeouts", words, late[round(0.99 * (len(late) - 1))] * 1000, " ms", here)]
