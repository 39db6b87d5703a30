"""`max_concurrency`: so many requests to one provider at once, and what waited for it says so."""

from support.crowd import most_in_flight
from support.workplace import Workplace

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
JOB = "  - {{name: {name}, schedule: every 10s, prompt: hello, model: {provider}/m}}\n"


def requests_to(server: ThreadedLoopback, provider: str) -> list[Received]:
    """Return the requests to one provider's path."""
    return [request for request in server.requests if request.path.startswith(f"/{provider}/")]


def test_no_more_than_so_many_requests_are_in_flight_and_the_wait_is_told(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The limit is the provider's, over all of its credentials; another provider is not held up."""
    primary.script(Endpoint.CHAT, Reply.text("here").after(TAKING))
    workplace.environ |= {"MAIN": "main-key", "SPARE": "spare-key"}
    names = {provider: [f"{provider}-{number}" for number in range(RUNS)] for provider in ("narrow", "wide")}
    jobs = (JOB.format(name=name, provider=provider) for provider in names for name in names[provider])
    origin = primary.origin
    workplace.configure(CONFIG.format(narrow=f"{origin}/narrow/v1", wide=f"{origin}/wide/v1") + "".join(jobs))

    with workplace.daemon():
        runs = workplace.first_runs(*names["narrow"], *names["wide"])

    assert {run["state"] for run in runs.values()} == {"succeeded"}
    first = {provider: requests_to(primary, provider)[:RUNS] for provider in names}
    assert most_in_flight(first["narrow"], taking=TAKING) <= 2
    assert most_in_flight(first["wide"], taking=TAKING) > 2
    attempts = [runs[name]["attempts"][0] for name in names["narrow"]]
    waits = sorted(attempt["waited"] for attempt in attempts)
    assert waits[:2] == [0.0, 0.0]
    assert waits[-1] >= 2.5 * TAKING
    assert {a["wait_reason"] for a in attempts if a["waited"]} == {"max_concurrency of narrow was reached"}
    assert {runs[name]["attempts"][0]["wait_reason"] for name in names["wide"]} == {None}
