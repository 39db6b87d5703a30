"""(a), (b), (c): CPU of a whole durable run, beside one call of the SDK, of a router, and a process for it.

"Whole" is claimed, started, rendered, asked, settled and finished on a SQLite file, with the daemon's
listeners, its default of 32 workers, and a provider that takes 50 ms. Beside it, the SDK and the router get
the same answers with 32 calls in flight; the row without a target makes one call after the other, from a
provider that takes no time.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from statistics import median

from bench.contest import Contestant, compete, contestants
from bench.figures import Figure, in_ms
from bench.peers import Peers, ours
from bench.profiles import Profile, watched
from bench.provider import Provider

CALLS = 400
ROUTED_CALLS = 100
DELAY = 50
PROCESSES = 5
WARM_UP = 100


def measure(parts: frozenset[str], provider: Provider, peers: Peers) -> list[Figure]:
    """Return the figures of these parts; every contestant has 32 calls in flight, but the one in a row."""
    commands = _commands(parts, provider, peers)
    calls = {name: ROUTED_CALLS if name == "router" else CALLS for name in commands}
    with contestants(commands) as found:
        compete(found, calls, warm_up=WARM_UP)
    fresh = _fresh(provider.answers(0)) if "c" in parts else None
    return [figure for figure in _figures(found, fresh) if figure.part in parts]


def profile(provider: Provider, peers: Peers) -> Profile:
    """Return where a round of whole runs spends its time."""
    with contestants({"here": ours("pipeline", provider.answers(DELAY))}) as found:
        here = found["here"]
        here.round(WARM_UP)
        with watched(here.process.pid, peers.spy) as taken:
            for _ in range(5):
                here.round(CALLS)
    return taken


def _commands(parts: frozenset[str], provider: Provider, peers: Peers) -> Mapping[str, Sequence[str]]:
    url = provider.answers(DELAY)
    commands = {"here": ours("pipeline", url)}
    if "a" in parts:
        commands["threads"] = ours("sdk", "threads", url)
        commands["aiohttp"] = ours("sdk", "aiohttp", url)
        commands["row"] = ours("sdk", "row", provider.answers(0))
    if "b" in parts and peers.python:
        commands["router"] = peers.theirs("router", url, url)
    return commands


def _figures(found: Mapping[str, Contestant], fresh: float | None) -> list[Figure]:
    here = found["here"].cpu
    wanted: list[tuple[str, str, str, float | None]] = [
        ("a", "threads", "sync openai SDK, one client, 32 threads", 1.0),
        ("a", "row", "sync openai SDK, one client, one call after the other", None),
        ("a", "aiohttp", "AsyncOpenAI on aiohttp, 32 in flight", 1.5),
        ("b", "router", "litellm.Router with a fallback, 32 in flight", 1.0),
    ]
    figures = [
        Figure(
            part,
            f"CPU of a durable run ÷ {what}",
            here / found[name].cpu,
            here=in_ms(here),
            beside=in_ms(found[name].cpu),
            most=most,
        )
        for part, name, what, most in wanted
        if name in found
    ]
    if fresh is not None:
        what = "CPU of a durable run ÷ a fresh python that makes one call"
        figures.append(Figure("c", what, here / fresh, here=in_ms(here), beside=in_ms(fresh), most=0.01))
    return figures


def _fresh(url: str) -> float:
    """Return the CPU seconds of a process that makes one call: the median of some."""
    spent = []
    for _ in range(PROCESSES):
        process = subprocess.Popen(ours("once", url))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        spent.append(usage.ru_utime + usage.ru_stime)
    return median(spent)
