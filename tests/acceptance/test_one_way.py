"""S12: a try goes forward through its chain and never back; the next run starts at the first open target."""

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: one/large
fallback_providers: [two/middle, three/small]
providers:
  one:
    base_url: {server}/one/v1
    credentials: [{{label: main, key: env:ONE}}, {{label: spare, key: env:ONE_SPARE}}]
  two: {{base_url: "{server}/two/v1", credentials: [{{label: main, key: env:TWO}}]}}
  three: {{base_url: "{server}/three/v1", credentials: [{{label: main, key: env:THREE}}]}}
jobs:
  - {{name: digest, schedule: null, prompt: "Summarise."}}
  - {{name: two-deep, schedule: null, prompt: "Summarise.", fallback: [two/middle]}}
  - {{name: zigzag, schedule: null, prompt: "Summarise.", fallback: [two/middle, one/larger]}}
"""
NONSENSE = Reply.raw(200)
UNKNOWN_MODEL = Reply.error(404, code="model_not_found", message="The model does not exist")


@pytest.fixture
def three(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    """A workplace with three providers on one host."""
    workplace.configure(CONFIG.format(server=primary.origin))
    workplace.environ |= {"ONE": "key-1", "ONE_SPARE": "key-1b", "TWO": "key-2", "THREE": "key-3"}
    return workplace


def order(server: ThreadedLoopback) -> list[tuple[str, str | None, str | None]]:
    """Return provider, key and model of every request, in order."""
    return [(r.path.split("/")[1], r.key, r.model) for r in server.requests]


def test_s12_a_try_goes_down_the_chain_and_the_next_run_begins_at_its_head(
    three: Workplace, primary: ThreadedLoopback
) -> None:
    primary.script(Endpoint.CHAT, NONSENSE, NONSENSE, Reply.text("the first again"), key="key-1")
    primary.script(Endpoint.CHAT, NONSENSE, key="key-2")
    primary.script(Endpoint.CHAT, Reply.text("the last"), key="key-3")

    first, second = three.ran("job", "run", "digest"), three.ran("job", "run", "digest")

    assert (first["output"], first["served"]["provider"]) == ("the last", "three")
    assert (first["fallback"], first["fallback_reason"]) == (True, "invalid_response")
    assert [a["target_index"] for a in first["attempts"]] == [0, 0, 1, 1, 2]
    assert (second["output"], second["served"]["provider"]) == ("the first again", "one")
    assert (second["fallback"], second["fallback_reason"]) == (False, None)
    assert order(primary) == [
        *[("one", "key-1", "large")] * 2,
        *[("two", "key-2", "middle")] * 2,
        ("three", "key-3", "small"),
        ("one", "key-1", "large"),
    ]


def test_s12_a_primary_that_has_recovered_meanwhile_is_not_asked_again(
    three: Workplace, primary: ThreadedLoopback
) -> None:
    """The run fails with the class of its first target, although a third request would have been answered."""
    primary.script(Endpoint.CHAT, NONSENSE, NONSENSE, Reply.text("well again"), key="key-1")
    primary.script(Endpoint.CHAT, UNKNOWN_MODEL, key="key-2")

    run = three.ran("job", "run", "two-deep")

    assert (run["state"], run["reason"], run["output"]) == ("failed", "invalid_response", None)
    assert [a["recovery"] for a in run["attempts"]] == ["retry", "next_target", "stop"]
    assert order(primary) == [*[("one", "key-1", "large")] * 2, ("two", "key-2", "middle")]


def test_s12_a_later_target_of_the_same_provider_is_a_step_forward(
    three: Workplace, primary: ThreadedLoopback
) -> None:
    """It brings its own model, and a fresh budget of retries."""
    primary.script(Endpoint.CHAT, UNKNOWN_MODEL, model="large")
    primary.script(Endpoint.CHAT, NONSENSE, key="key-2")
    primary.script(Endpoint.CHAT, NONSENSE, Reply.text("larger"), model="larger")

    run = three.ran("job", "run", "zigzag")

    assert (run["output"], run["fallback_reason"]) == ("larger", "model_not_found")
    assert run["served"] == {"provider": "one", "model": "larger", "credential": "main"}
    assert order(primary) == [
        ("one", "key-1", "large"),
        *[("two", "key-2", "middle")] * 2,
        *[("one", "key-1", "larger")] * 2,
    ]


def test_s12_another_key_of_the_same_target_is_no_fallback(
    three: Workplace, primary: ThreadedLoopback
) -> None:
    """A revoked key closes itself; the next run begins with the one that is open."""
    primary.script(Endpoint.CHAT, Reply.error(401, code="invalid_api_key"), key="key-1")

    first, second = three.ran("job", "run", "digest"), three.ran("job", "run", "digest")

    assert first["served"] == {"provider": "one", "model": "large", "credential": "spare"}
    assert (first["fallback"], first["fallback_reason"]) == (False, None)
    assert [a["recovery"] for a in first["attempts"]] == ["next_credential", None]
    assert [(a["credential"], a["outcome"]) for a in second["attempts"]] == [("spare", "succeeded")]
    assert [key for _, key, _ in order(primary)] == ["key-1", "key-1b", "key-1b"]
