"""A slow or hostile provider holds no worker: a run ends at its deadline, or the next target answers.

One daemon with fewer workers than jobs faces every server of `support.hostile` at once, each job twice:
with a fallback, and alone with a deadline of a few seconds.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from support import crowd
from support.hostile import LIES, STALLS, HostileServer
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

WAYS = [*STALLS, *LIES]
ALONE = 4.0
"""The timeout of a job without a fallback, in seconds."""
REQUEST = 2.0
"""The timeout of one request to a hostile provider that has a fallback."""
MOST_MEMORY = 300 * 1024 * 1024
SECRET = "the-key-of-the-target"


@dataclass(frozen=True)
class Seen:
    """Each job's first run with the classes of its failed attempts; the most memory that the daemon took."""

    runs: dict[str, Any]
    memory: int


def configuration(hostile: HostileServer, backup: ThreadedLoopback) -> str:
    """Return a file with two providers and two jobs for each way to misbehave."""
    key = "credentials: [{label: main, key: env:MAIN}]"
    last = f'{{provider: custom, name: last, base_url: "{backup.base_url}", model: small}}'
    due, providers, jobs = "schedule: every 10s, max_runs: 1, prompt: x", [], []
    for number, way in enumerate(WAYS):
        url, with_next, alone = hostile.url(way), f"h{number}", f"a{number}"
        providers.append(f'  {with_next}: {{base_url: "{url}", timeout: {REQUEST:g}s, {key}}}')
        providers.append(f'  {alone}: {{base_url: "{url}/", {key}}}')
        jobs.append(f"  - {{name: {with_next}, {due}, model: {with_next}/m, fallback: [{last}]}}")
        jobs.append(f"  - {{name: {alone}, {due}, model: {alone}/m, timeout: {ALONE:g}s}}")
    head = "limits: {max_concurrent_runs: 12, drain_timeout: 1s}\ndefaults: {timeout: 60s}\n"
    return head + "\n".join(["providers:", *providers, "jobs:", *jobs]) + "\n"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Let one daemon meet every one of them."""
    workplace = Workplace(tmp_path_factory.mktemp("hostile"), {"MAIN": SECRET})
    with ThreadedLoopback() as backup, HostileServer({**STALLS, **LIES}) as hostile:
        backup.script(Endpoint.CHAT, Reply.text("from the fallback"))
        workplace.configure(configuration(hostile, backup))
        with workplace.daemon() as daemon:
            runs = {run["job"]: run for run in crowd.first_runs(workplace, 2 * len(WAYS))}
            memory = crowd.peak_memory(daemon)
        for run in runs.values():
            failed = "SELECT error_class FROM attempts WHERE run_id = ? AND outcome = 'failed'"
            run["classes"] = {attempt["error_class"] for attempt in workplace.rows(failed, run["id"])}
    return Seen(runs, memory)


@pytest.mark.parametrize("way", WAYS)
def test_the_next_target_answers(seen: Seen, way: str) -> None:
    run = seen.runs[f"h{WAYS.index(way)}"]

    assert (run["state"], run["output"]) == ("succeeded", "from the fallback"), run
    assert run["classes"] == {"timeout"} if way in STALLS else run["classes"]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_alone_ends_at_its_deadline_or_before(seen: Seen, way: str) -> None:
    """How soon after it, `make bench` says."""
    run = seen.runs[f"a{WAYS.index(way)}"]

    assert run["output"] is None
    assert run["state"] == "timed_out" if way in STALLS else run["state"] in ("failed", "timed_out"), run


def test_none_of_them_takes_much_memory(seen: Seen) -> None:
    print(f"{len(WAYS)} hostile providers: {seen.memory / 1024 / 1024:.0f} MB at most")
    assert seen.memory < MOST_MEMORY
