"""Inside a measured process: rounds of work on request, each answered with the CPU time that it took.

Nothing but the standard library is imported here: peers run in an environment of their own.
"""

import json
import sys
import time
from collections.abc import Callable


def _nothing() -> None:
    """Prepare nothing."""


def serve(work: Callable[[int], None], *, before: Callable[[], None] = _nothing) -> None:
    """Do `work(calls)` for each number that comes on standard input; print what it cost, as JSON.

    `cpu` is that of all threads of this process, in seconds (`time.process_time`). What `before` does is not
    counted.
    """
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        calls = int(line)
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        work(calls)
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(spent), flush=True)
