"""Many jobs due in the same second, and what the ledger and the provider saw of them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs.providers.loopback_replies import Received
from support.workplace import DaemonProcess, Workplace, eventually

SOON = timedelta(seconds=4)
CONFIG = """
model: {{provider: custom, name: local, base_url: "{base_url}", model: small, api_key: no-key-required}}
limits: {{max_concurrent_runs: {at_once}}}
defaults: {{timeout: {timeout}}}
jobs:
"""
JOB = '  - {{name: job-{number}, schedule: "at {moment:%Y-%m-%dT%H:%M:%SZ}", prompt: "Say something."}}\n'


def configure(
    workplace: Workplace, base_url: str, *, jobs: int, at_once: int, timeout: str = "2m"
) -> datetime:
    """Make so many jobs due in one second, and return it: soon, but after the daemon has come up."""
    moment = (datetime.now(UTC) + SOON).replace(microsecond=0)
    head = CONFIG.format(base_url=base_url, at_once=at_once, timeout=timeout)
    workplace.configure(head + "".join(JOB.format(number=n, moment=moment) for n in range(jobs)))
    return moment


def wait_for_ends(workplace: Workplace, number: int, *, within: float = 120) -> None:
    """Wait until so many runs have ended."""
    ended = "SELECT count(*) AS number FROM runs WHERE finished_at IS NOT NULL"
    eventually(lambda: workplace.rows(ended)[0]["number"] >= number, within=within)


def most_in_flight(requests: list[Received], taking: float) -> int:
    """Return how many requests overlapped at least, when none was answered before `taking` seconds."""
    arrivals = sorted(request.received_at for request in requests)
    return max(
        sum(earlier > arrival - taking for earlier in arrivals[: number + 1])
        for number, arrival in enumerate(arrivals)
    )


def peak_memory(daemon: DaemonProcess) -> int:
    """Return the largest resident set that the process ever had, in bytes (proc(5), `VmHWM`)."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text("utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) * 1024


def past_the_timeout(workplace: Workplace, timeout: float) -> list[float]:
    """Return, in order of size, how many seconds after its timeout each run ended."""
    rows = workplace.rows("SELECT started_at, finished_at FROM runs WHERE state = 'timed_out'")
    spans = (datetime.fromisoformat(r["finished_at"]) - datetime.fromisoformat(r["started_at"]) for r in rows)
    return sorted(span.total_seconds() - timeout for span in spans)


def distribution(seconds: list[float]) -> str:
    """Say the median, the 99th percentile and the largest of sorted times, in milliseconds."""
    last = len(seconds) - 1
    median, high, most = (seconds[round(last * share)] * 1000 for share in (0.5, 0.99, 1))
    return f"p50 {median:.1f} ms, p99 {high:.1f} ms, max {most:.1f} ms"
