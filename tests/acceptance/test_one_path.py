"""S4: a scheduled run, `job run` and `ask` are one path: what one falls back from, all do."""

from typing import Any

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: openai-codex/gpt-5.5
fallback_providers:
  - openai/gpt-5.5
  - zai/glm-5.1
  - {{provider: custom, name: last, base_url: "{backup}", model: small}}
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  zai: {{base_url: "{primary}", credentials: [{{label: main, key: env:ONE}}, {{label: spare, key: env:TWO}}]}}
jobs: [{{name: digest, schedule: {schedule}, prompt: "Summarise."}}]
"""
FACTS = (
    "purpose", "target_index", "provider", "model", "base_url", "credential", "outcome", "error_class",
    "http_status", "code", "message", "recovery",
)  # fmt: skip


@pytest.fixture
def troubled(workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback) -> Workplace:
    """A chain in which resolving fails in two ways and asking in two, before somebody answers."""
    primary.script(Endpoint.TOKEN, Reply.token_error(401, "invalid_grant"))
    primary.script(Endpoint.CHAT, Reply.error(401, message="who are you"), key="key-1")
    primary.script(Endpoint.CHAT, Reply.responses_status("failed", code="1113"), key="key-2")
    backup.script(Endpoint.CHAT, Reply.text("all quiet"))
    addresses = {"codex": primary.codex_url, "token": primary.token_url, "primary": primary.base_url}
    workplace.configure(CONFIG.format(**addresses, backup=backup.base_url, schedule="every 1s"))
    workplace.environ |= {"ONE": "key-1", "TWO": "key-2"}
    workplace.log_in(refresh_token="spent", expires_in=-60)
    return workplace


def story(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a run's attempts say, without what differs from run to run."""
    return [{name: attempt[name] for name in FACTS} for attempt in run["attempts"]]


def test_s4_scheduled_by_hand_and_asked_runs_take_the_same_steps(
    troubled: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The same attempts, requests and keys, whichever way the prompt came in."""
    with troubled.daemon():
        troubled.wait_finished()
    scheduled = troubled.shown(troubled.finished_runs()[0]["id"])
    asked = [[(r.endpoint, r.key) for r in primary.requests]]
    runs = [scheduled]
    for words in (("job", "run", "digest"), ("ask", "Summarise.")):
        for provider in ("openai-codex", "zai"):
            assert troubled.run("auth", "reset", provider).code == 0
        before = len(primary.requests)
        runs.append(troubled.ran(*words))
        asked.append([(r.endpoint, r.key) for r in primary.requests[before:]])

    assert [run["trigger"] for run in runs] == ["schedule", "manual", "ask"]
    assert {(run["state"], run["output"], run["fallback_reason"]) for run in runs} == {
        ("succeeded", "all quiet", "auth_dead")
    }
    assert story(runs[0]) == story(runs[1]) == story(runs[2])
    steps = [(a["provider"], a["credential"], a["error_class"], a["recovery"]) for a in story(runs[0])]
    assert steps[:3] == [
        ("openai-codex", "plan", "auth_dead", "next_target"),
        ("openai", None, "config_error", "next_target"),
        ("zai", "main", "auth", "next_credential"),
    ]
    assert steps[-1] == ("custom:last", "none", None, None)
    assert asked[1] == asked[2] == asked[0][: len(asked[1])]
    assert {request.key for request in backup.requests} == {"no-key-required"}


def test_s4_an_answer_asked_for_in_a_terminal_says_who_gave_it_and_why(
    troubled: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """Standard output is the answer only; the fallback is told on standard error."""
    result = troubled.run("ask", "Summarise.")

    assert (result.code, result.out) == (0, "all quiet\n")
    assert "custom:last/small" in result.err
    assert "auth_dead" in result.err


def test_s4_a_chosen_provider_has_the_configured_chain_behind_it(
    troubled: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    run = troubled.ran("ask", "Summarise.", "--provider", "Z.AI", "--model", "glm-5.2")

    assert run["requested"] == {"provider": "zai", "model": "glm-5.2"}
    assert (run["state"], run["served"]["provider"]) == ("succeeded", "custom:last")
    assert (run["attempts"][0]["provider"], run["attempts"][0]["model"]) == ("zai", "glm-5.2")
