"""Many jobs due in the same second, and what the ledger and the provider saw of them."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.providers.loopback_replies import Received
from support.workplace import DaemonProcess, Workplace, eventually

CONFIG = """
model: {{provider: custom, name: local, base_url: "{base_url}", model: small, api_key: no-key-required}}
limits: {{max_concurrent_runs: {at_once}, drain_timeout: 1s}}
defaults: {{timeout: {timeout}}}
jobs:
"""
JOB = "  - {{name: job-{number}, schedule: every 10s, max_runs: 1, prompt: 'Say something.'}}\n"
FIRST = "scheduled_for = (SELECT min(scheduled_for) FROM runs)"


def configure(workplace: Workplace, base_url: str, *, jobs: int, at_once: int, timeout: str = "2m") -> None:
    """Make so many jobs due in the same second, within 10 s of their first sight, and only then."""
    head = CONFIG.format(base_url=base_url, at_once=at_once, timeout=timeout)
    workplace.configure(head + "".join(JOB.format(number=number) for number in range(jobs)))


def first_runs(workplace: Workplace, number: int, *, within: float = 600) -> list[dict[str, Any]]:
    """Wait until so many runs of the first instant have ended; return their rows."""
    ended = f"SELECT * FROM runs WHERE {FIRST} AND finished_at IS NOT NULL"

    def all_ended() -> list[dict[str, Any]] | None:
        rows = workplace.rows(ended)
        return rows if len(rows) >= number else None

    return eventually(all_ended, within=within)


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


def past_the_timeout(runs: list[dict[str, Any]], timeout: float) -> list[float]:
    """Return, in order of size, how many seconds after its timeout each run ended."""
    late = [run for run in runs if run["state"] == "timed_out"]
    spans = (datetime.fromisoformat(r["finished_at"]) - datetime.fromisoformat(r["started_at"]) for r in late)
    return sorted(span.total_seconds() - timeout for span in spans)


def distribution(seconds: list[float]) -> str:
    """Say the median, the 99th percentile and the largest of sorted times, in milliseconds."""
    last = len(seconds) - 1
    median, high, most = (seconds[round(last * share)] * 1000 for share in (0.5, 0.99, 1))
    return f"p50 {median:.1f} ms, p99 {high:.1f} ms, max {most:.1f} ms"
