"""S10: what fails in passing is asked again, within bounds and with patience; then the next in the chain.

One daemon runs a job per way to fail, each against a provider of its own with two keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from support.wire import nobodys_port
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

AGAIN_TWICE = ("main", "main", "main")
AGAIN_ONCE = ("main", "main")
GOOD = Reply.text("never asked for")


@dataclass(frozen=True)
class Case:
    """A failing reply, its class, and the keys with which it is asked for, in order."""

    reply: Reply
    error_class: str
    keys: tuple[str, ...] = AGAIN_TWICE
    job: str = ""


CASES = {
    "http-500": Case(Reply.raw(500), "server_error"),
    "http-502": Case(Reply.raw(502), "server_error"),
    "http-503": Case(Reply.raw(503), "overloaded"),
    "http-504": Case(Reply.error(504, message="upstream"), "server_error"),
    "http-520": Case(Reply.raw(520), "server_error"),
    "http-529": Case(Reply.error(529, type="overloaded_error"), "overloaded"),
    "http-408": Case(Reply.raw(408), "server_error"),
    "dropped": Case(GOOD.cut(), "connection", AGAIN_ONCE),
    "cut-short": Case(GOOD.cut(40), "connection", AGAIN_ONCE),
    "silent": Case(GOOD.silent(), "timeout", ("main",)),
    "silent-and-safe": Case(GOOD.silent(), "timeout", AGAIN_ONCE, "repeat_safe: true, "),
    "busy-with-hint": Case(Reply.raw(503, {"retry-after": "2"}), "overloaded"),
    "limit-with-hint": Case(Reply.raw(429, {"retry-after": "1"}), "rate_limit", ("main", "main", "spare")),
    "limit-far-away": Case(Reply.raw(429, {"retry-after": "60"}), "rate_limit", ("main", "spare")),
}
SILENT = ("silent", "silent-and-safe")
DOWN = tuple(f"down-{number}" for number in range(5))
BACKOFFS = ("http-500", "http-502", "http-503", "http-504", "http-520", "http-529", "http-408")


@dataclass(frozen=True)
class Seen:
    """The first run of each job, and what the servers received in it, in order."""

    runs: dict[str, Any]
    requests: list[Received]

    def asked(self, case: str) -> list[Received]:
        """Return the requests of one case's first run."""
        run = self.runs[case]
        prompt = f"{run['job']} {datetime.fromisoformat(run['scheduled_for'])}"
        return [request for request in self.requests if request.prompt == prompt]


def configuration(primary: ThreadedLoopback, refused: str) -> str:
    keys = "credentials: [{label: main, key: env:MAIN}, {label: spare, key: env:SPARE}]"
    providers = [
        f'  {case}: {{base_url: "{primary.origin}/{case}/v1", {"timeout: 1s, " * (case in SILENT)}{keys}}}'
        for case in (*CASES, *DOWN)
    ]
    providers.append(f'  refused: {{base_url: "{refused}", {keys}}}')
    prompt = 'schedule: every 1s, max_runs: 1, prompt: "{{ job }} {{ scheduled_for }}"'
    last = f'{{provider: custom, name: last, base_url: "{primary.origin}/last/v1", model: small}}'
    jobs = [
        f"  - {{name: {name}, {prompt}, {case.job}model: {name}/{name}, fallback: [{last}]}}"
        for name, case in CASES.items()
    ]
    jobs.append(f"  - {{name: refused, {prompt}, model: refused/m, fallback: [{last}]}}")
    head, *others = (f"{name}/down" for name in DOWN)
    jobs.append(f"  - {{name: all-down, {prompt}, model: {head}, fallback: [{', '.join(others)}, {last}]}}")
    return "\n".join(["timezone: UTC", "providers:", *providers, "jobs:", *jobs]) + "\n"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Run every case in one daemon."""
    workplace = Workplace(tmp_path_factory.mktemp("retries"), {"MAIN": "main-key", "SPARE": "spare-key"})
    with ThreadedLoopback() as primary, nobodys_port() as port:
        for name, case in CASES.items():
            primary.script(Endpoint.CHAT, case.reply, model=name)
        primary.script(Endpoint.CHAT, Reply.raw(500), model="down")
        workplace.configure(configuration(primary, f"http://127.0.0.1:{port}/v1"))
        with workplace.daemon():
            workplace.wait_first_runs(*CASES, "refused", "all-down", within=600)
        runs = workplace.first_runs(*CASES, "refused", "all-down")
        yield Seen(runs, primary.requests)


@pytest.mark.parametrize("case", [*CASES, "refused"])
def test_the_fallback_answers_after_a_bounded_number_of_requests(seen: Seen, case: str) -> None:
    run, wanted = seen.runs[case], CASES.get(case, Case(GOOD, "connection", AGAIN_ONCE))
    *failed, answered = run["attempts"]
    assert (run["state"], run["served"]["provider"]) == ("succeeded", "custom:last")
    assert run["fallback_reason"] == wanted.error_class
    assert [a["error_class"] for a in failed] == [wanted.error_class] * len(wanted.keys)
    assert [a["credential"] for a in failed] == list(wanted.keys)
    assert failed[-1]["recovery"] == "next_target"
    for one, next_one in pairwise(failed):
        same_key = one["credential"] == next_one["credential"]
        assert one["recovery"] == ("retry" if same_key else "next_credential")
    assert answered["outcome"] == "succeeded"


@pytest.mark.parametrize("case", CASES)
def test_each_attempt_is_one_request_and_the_keys_stay_at_home(seen: Seen, case: str) -> None:
    *failed, answered = seen.asked(case)
    assert [request.key for request in failed] == [f"{label}-key" for label in CASES[case].keys]
    assert {request.path for request in failed} == {f"/{case}/v1/chat/completions"}
    assert (answered.key, answered.path) == ("no-key-required", "/last/v1/chat/completions")


@pytest.mark.parametrize("case", BACKOFFS)
def test_the_backoff_doubles_from_half_a_second_with_jitter_and_is_told(seen: Seen, case: str) -> None:
    first, second, third, answered = seen.runs[case]["attempts"]
    assert (first["waited"], first["wait_reason"]) == (0.0, None)
    assert 0.25 <= second["waited"] <= 0.5
    assert 0.5 <= third["waited"] <= 1.0
    assert second["wait_reason"] == third["wait_reason"] == "backoff"
    assert (answered["waited"], answered["wait_reason"]) == (0.0, None)
    times = [request.received_at for request in seen.asked(case)]
    assert times[1] - times[0] >= second["waited"]
    assert times[2] - times[1] >= third["waited"]


def test_the_jitter_differs_from_run_to_run(seen: Seen) -> None:
    assert len({seen.runs[case]["attempts"][1]["waited"] for case in BACKOFFS}) > 1


@pytest.mark.parametrize(("case", "seconds"), [("busy-with-hint", 2), ("limit-with-hint", 1)])
def test_a_short_hint_is_waited_for_and_told(seen: Seen, case: str, seconds: int) -> None:
    first, second = seen.runs[case]["attempts"][:2]
    assert 0 < first["retry_after"] <= seconds + 0.1
    assert 0 < second["waited"] <= seconds + 0.2
    assert second["wait_reason"]
    times = [request.received_at for request in seen.asked(case)]
    assert times[1] - times[0] >= max(second["waited"], seconds - 0.1)


def test_a_call_sends_at_most_twelve_requests_whatever_the_chain(seen: Seen) -> None:
    """Five targets that are down would be fifteen; the sixth is never reached."""
    run, requests = seen.runs["all-down"], seen.asked("all-down")
    assert (run["state"], run["reason"], run["output"]) == ("failed", "server_error", None)
    assert [request.path.split("/")[1] for request in requests] == [
        name for name in DOWN[:4] for _ in range(3)
    ]
    assert run["attempts"][-1]["recovery"] == "stop"
    assert len(run["attempts"]) == 12
