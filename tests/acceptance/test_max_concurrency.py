"""`max_concurrency`: so many requests to one provider at once, and what waited for it says so."""

from support.crowd import most_in_flight
from support.workplace import Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

TAKING = 0.5
RUNS = 8
CONFIG = """
providers:
  narrow:
    base_url: "{narrow}"
    max_concurrency: 2
    credentials: [{{label: main, key: env:MAIN}}, {{label: spare, key: env:SPARE}}]
  wide: {{base_url: "{wide}", credentials: [{{label: main, key: env:MAIN}}]}}
limits: {{max_concurrent_runs: 32, drain_timeout: 1s}}
jobs:
"""
JOB = "  - {{name: {name}, schedule: every 2s, max_runs: 1, prompt: hello, model: {provider}/m}}\n"


def requests_to(server: ThreadedLoopback, provider: str) -> list[Received]:
    """Return the requests to one provider's path."""
    return [request for request in server.requests if request.path.startswith(f"/{provider}/")]


def all_begun(workplace: Workplace) -> bool:
    """Say whether every run has begun."""
    begun = workplace.rows("SELECT id FROM runs WHERE started_at IS NOT NULL")
    return len(begun) == 2 * RUNS


def test_no_more_than_so_many_requests_are_in_flight_and_the_wait_is_told(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The limit is the provider's, over all of its credentials; another provider is not held up."""
    primary.script(Endpoint.CHAT, Reply.text("here").held().after(TAKING))
    workplace.environ |= {"MAIN": "main-key", "SPARE": "spare-key"}
    names = {provider: [f"{provider}-{number}" for number in range(RUNS)] for provider in ("narrow", "wide")}
    jobs = (JOB.format(name=name, provider=provider) for provider in names for name in names[provider])
    origin = primary.origin
    workplace.configure(CONFIG.format(narrow=f"{origin}/narrow/v1", wide=f"{origin}/wide/v1") + "".join(jobs))

    with workplace.daemon():
        eventually(lambda: len(requests_to(primary, "wide")) == RUNS and all_begun(workplace))
        narrow = requests_to(primary, "narrow")
        primary.let_go()
        workplace.wait_first_runs(*names["narrow"], *names["wide"])

    runs = workplace.first_runs(*names["narrow"], *names["wide"])
    assert {run["state"] for run in runs.values()} == {"succeeded"}
    assert len(narrow) == 2, "while all of the other provider's are in flight"
    later = requests_to(primary, "narrow")[2:]
    assert len(later) == RUNS - 2
    assert most_in_flight(later, taking=TAKING) <= 2
    attempts = [runs[name]["attempts"][0] for name in names["narrow"]]
    waits = sorted(attempt["waited"] for attempt in attempts)
    assert waits[:2] == [0.0, 0.0]
    assert waits[-1] > TAKING
    assert {a["wait_reason"] for a in attempts if a["waited"]} == {"max_concurrency of narrow was reached"}
    assert {runs[name]["attempts"][0]["wait_reason"] for name in names["wide"]} == {None}
