"""(i): the first provider answers 401, the second answers: beside two calls of the SDK, and a router.

Each run's first provider is one of its own that was not asked before, so nobody knows that it refuses; the
router's cooldowns are off, for the same reason.
"""

from bench.contest import compete, contestants
from bench.figures import Figure, in_ms
from bench.peers import Peers, ours
from bench.profiles import Profile, watched
from bench.provider import Provider

CALLS = 300
ROUTED_CALLS = 60
DELAY = 50
WARM_UP = 60


def measure(provider: Provider, peers: Peers) -> list[Figure]:
    """Return both figures; everybody has 32 in flight."""
    good, bad = provider.answers(DELAY), provider.refuses(0)
    commands = {"here": _here(provider), "sdk": ours("sdk", "failover", good, bad)}
    if peers.python:
        commands["router"] = peers.theirs("router", good, bad)
    calls = {name: ROUTED_CALLS if name == "router" else CALLS for name in commands}
    with contestants(commands) as found:
        compete(found, calls, warm_up=WARM_UP)
    said = {"sdk": ("two calls of the sync SDK, 32 threads", 1.2), "router": ("litellm.Router", 1.0)}
    here = found["here"].cpu
    return [
        Figure(
            "i",
            f"CPU of a durable run with a 401 first ÷ {what}",
            here / found[name].cpu,
            here=in_ms(here),
            beside=in_ms(found[name].cpu),
            most=most,
        )
        for name, (what, most) in said.items()
        if name in found
    ]


def profile(provider: Provider, peers: Peers) -> Profile:
    """Return where a round of such runs spends its time."""
    with contestants({"here": _here(provider)}) as found:
        here = found["here"]
        here.round(WARM_UP)
        with watched(here.process.pid, peers.spy) as taken:
            for _ in range(4):
                here.round(CALLS)
    return taken


def _here(provider: Provider) -> list[str]:
    return ours("pipeline", provider.answers(DELAY), provider.refuses(0, tail="first"))
