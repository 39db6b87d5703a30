"""What a job may say about its chain and its requests, and that the servers see it so."""

from typing import Any

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: one/main
fallback_providers: [two/spare]
providers:
  one: {{base_url: "{origin}/one/v1", credentials: [{{label: main, key: env:ONE}}]}}
  hasty: {{base_url: "{origin}/one/v1", timeout: 1s, credentials: [{{label: main, key: env:ONE}}]}}
  two: {{base_url: "{origin}/two/v1", api_mode: responses, credentials: [{{label: main, key: env:TWO}}]}}
  three: {{base_url: "{origin}/three/v1", credentials: [{{label: main, key: env:THREE}}]}}
  login:
    base_url: "{origin}/login/v1"
    credentials: [{{label: plan, oauth: {{token_url: "{token}", client_id: app}}}}]
  nobody: {{base_url: "{origin}/nobody/v1", credentials: [{{label: main, key: env:NOBODY}}]}}
jobs:
"""
TUNED = "temperature: 0.2, max_output_tokens: 70, reasoning_effort: low, seed: 5, extra_body: {top_p: 0.5}"
JOBS = {
    "plain": "",
    "own-model": "model: three/big",
    "inherits": "model: three/big, fallback: inherit",
    "alone": "fallback: none",
    "impatient": "model: hasty/main",
    "own-list": "fallback: [three/big]",
    "lenient": "fallback_on: [content_filter]",
    "wide": "fallback: [two/spare, {provider: three, model: big, larger_context: true}]",
    "tuned": f"parameters: {{{TUNED}}}",
    "cut-kept": "on_truncated: keep",
    "cut-failed": "on_truncated: fail",
    "keyless": "model: nobody/m",
    "keyless-lenient": "model: nobody/m, fallback_on: [config_error]",
    "many": f"fallback: [{', '.join(f'three/m{number}' for number in range(9))}]",
}
DOWN = Reply.error(402, code="no_money")


@pytest.fixture
def house(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace in which every provider is a path of one server."""
    workplace.environ |= {"ONE": "key-of-one", "TWO": "key-of-two", "THREE": "key-of-three"}
    head = CONFIG.format(origin=primary.origin, token=primary.token_url)
    jobs = (f"  - {{name: {name}, schedule: null, prompt: hello, {keys}}}\n" for name, keys in JOBS.items())
    workplace.configure(head + "".join(jobs))
    return workplace


def asked(server: ThreadedLoopback) -> list[str]:
    """Return `provider/model` of each request to a model, in order."""
    return [f"{one.path.split('/')[1]}/{one.model}" for one in server.requests]


def fail(server: ThreadedLoopback, *models: str, reply: Reply = DOWN) -> None:
    """Let models of any provider answer so, in either interface."""
    for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES):
        for model in models:
            server.script(endpoint, reply, model=model)


@pytest.mark.parametrize(
    ("job", "requests"),
    [
        ("plain", ["one/main", "two/spare"]),
        ("own-model", ["three/big", "two/spare"]),
        ("inherits", ["three/big", "two/spare"]),
        ("alone", ["one/main"]),
        ("own-list", ["one/main", "three/big"]),
    ],
)
def test_a_jobs_own_model_and_fallback_make_its_chain(
    house: Workplace, primary: ThreadedLoopback, job: str, requests: list[str]
) -> None:
    """Each target is asked with its own model, at its own URL, with its own key."""
    fail(primary, "main", "big", "spare")

    run = house.ran("job", "run", job)

    assert (run["state"], asked(primary)) == ("failed", requests)
    assert [one.key for one in primary.requests] == [f"key-of-{each.split('/')[0]}" for each in requests]


@pytest.mark.parametrize(("job", "state"), [("plain", "failed"), ("lenient", "succeeded")])
def test_moderation_goes_on_only_where_the_job_says_so(
    house: Workplace, primary: ThreadedLoopback, job: str, state: str
) -> None:
    fail(primary, "main", reply=Reply.error(400, code="content_filter"))

    assert house.ran("job", "run", job)["state"] == state


@pytest.mark.parametrize(("job", "state"), [("keyless", "failed"), ("keyless-lenient", "succeeded")])
def test_a_missing_key_is_papered_over_only_where_the_job_says_so(
    house: Workplace, primary: ThreadedLoopback, job: str, state: str
) -> None:
    run = house.ran("job", "run", job)

    assert (run["state"], run["attempts"][0]["error_class"]) == (state, "config_error")


def test_what_is_too_long_skips_to_the_target_with_a_larger_context(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    fail(primary, "main", reply=Reply.error(400, code="context_length_exceeded"))

    run = house.ran("job", "run", "wide")

    assert (run["state"], asked(primary)) == ("succeeded", ["one/main", "three/big"])
    assert [a["outcome"] for a in run["attempts"]] == ["failed", "passed_over", "succeeded"]


def test_parameters_reach_both_interfaces_by_their_names(house: Workplace, primary: ThreadedLoopback) -> None:
    fail(primary, "main")

    house.ran("job", "run", "tuned")

    chat, responses = (tuning(request) for request in primary.requests)
    assert chat == {
        "temperature": 0.2,
        "max_completion_tokens": 70,
        "reasoning_effort": "low",
        "seed": 5,
        "top_p": 0.5,
    }
    assert responses == {
        "temperature": 0.2,
        "max_output_tokens": 70,
        "reasoning": {"effort": "low"},
        "top_p": 0.5,
    }


def tuning(request: Received) -> dict[str, Any]:
    """Return what a request says besides the question."""
    asked = request.document()
    return {key: value for key, value in asked.items() if key not in ("model", "messages", "input")}


@pytest.mark.parametrize(
    ("job", "state", "reason"), [("cut-kept", "succeeded", None), ("cut-failed", "failed", "truncated")]
)
def test_a_cut_answer_is_kept_and_on_truncated_says_what_it_means(
    house: Workplace, primary: ThreadedLoopback, job: str, state: str, reason: str | None
) -> None:
    """It is an outcome, no error: nobody else is asked, and nobody is blamed."""
    fail(primary, "main", reply=Reply.text("as far as it goes", finish="length"))

    run = house.ran("job", "run", job)

    assert (run["state"], run["reason"], run["truncated"]) == (state, reason, True)
    assert (run["output"], asked(primary)) == ("as far as it goes", ["one/main"])
    assert house.credential("one")["status"] == "ok"


def test_a_providers_timeout_bounds_one_request_and_not_the_run(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    fail(primary, "main", reply=Reply.text("never said").silent())

    run = house.ran("job", "run", "impatient")

    assert (run["state"], run["fallback_reason"]) == ("succeeded", "timeout")
    assert "no answer within 1 s" in run["attempts"][0]["message"]


def test_a_chain_of_ten_is_asked_down_to_its_fifth(house: Workplace, primary: ThreadedLoopback) -> None:
    fail(
        primary,
        "main",
        *(f"m{number}" for number in range(9)),
        reply=Reply.error(404, code="model_not_found"),
    )

    run = house.ran("job", "run", "many")

    assert asked(primary) == ["one/main", "three/m0", "three/m1", "three/m2", "three/m3"]
    assert (run["state"], run["attempts"][-1]["recovery"]) == ("failed", "stop")
