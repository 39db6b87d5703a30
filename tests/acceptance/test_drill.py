"""`promptd drill`: named providers fail before a request leaves; the rest is real, and nobody is marked."""

import json

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: openai-codex/gpt-5.5
fallback_providers:
  - zai/glm-5.1
  - {{provider: custom, name: third, base_url: "{backup}", model: small, api_key: third-key}}
  - {{provider: custom, name: fourth, base_url: "{backup}", model: tiny, api_key: fourth-key}}
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  zai: {{base_url: "{zai}"}}
jobs:
  - {{name: morning-digest, schedule: "0 7 * * *", prompt: "Summarise."}}
  - {{name: other, schedule: null, prompt: "Hello.", model: zai/gone}}
"""
FAIL = ("--fail", "openai-codex=auth_dead", "--fail", "zai=quota_billing")


@pytest.fixture
def house(workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback) -> Workplace:
    """Codex with a login that has expired, Z.AI with a mark of its own, and two more behind them."""
    workplace.configure(
        CONFIG.format(
            codex=primary.codex_url, token=primary.token_url, zai=primary.base_url, backup=backup.base_url
        )
    )
    workplace.environ["ZAI_API_KEY"] = "zai-key"
    workplace.log_in(refresh_token="good", expires_in=-60)
    primary.script(Endpoint.CHAT, Reply.error(404, message="The model does not exist"), model="gone")
    assert workplace.ran("job", "run", "other")["fallback"]
    return workplace


def kept(house: Workplace) -> tuple[object, ...]:
    """Return all marks, all logins, and what is counted of jobs."""
    return tuple(house.rows(f"SELECT * FROM {table}") for table in ("marks", "tokens", "jobs"))


def test_a_drill_is_answered_by_the_third_target_and_leaves_all_marks_as_they_were(
    house: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    before, asked = kept(house), (len(primary.requests), len(backup.requests))
    assert [mark["scope"] for mark in house.rows("SELECT scope FROM marks")] == ["credential_model"]

    result = house.run("drill", "morning-digest", *FAIL)

    assert result.code == 0, result
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[1:3] == [
        "1 main openai-codex/gpt-5.5 plan failed by the drill: auth_dead next_target",
        "2 main zai/glm-5.1 ZAI_API_KEY failed by the drill: quota_billing next_target",
    ]
    assert lines[3].startswith("3 main custom:third/small key answered in ")
    assert "answered by custom:third/small, credential key" in result.err
    assert len(primary.requests) == asked[0]
    assert [(r.key, r.model) for r in backup.requests[asked[1] :]] == [("third-key", "small")]
    assert kept(house) == before


def test_a_fallback_that_really_fails_in_a_drill_is_left_and_not_marked(
    house: Workplace, backup: ThreadedLoopback
) -> None:
    backup.script(Endpoint.CHAT, Reply.error(402, message="pay first"), key="third-key")
    before = kept(house)

    run = house.ran("drill", "morning-digest", *FAIL)

    assert (run["trigger"], run["state"]) == ("drill", "succeeded")
    assert (run["served"]["provider"], run["fallback_reason"]) == ("custom:fourth", "auth_dead")
    assert [each["error_class"] for each in run["attempts"]] == [
        "auth_dead", "quota_billing", "quota_billing", None,
    ]  # fmt: skip
    assert [each["http_status"] for each in run["attempts"]] == [None, None, 402, 200]
    assert run["deliveries"] == []
    assert kept(house) == before


def test_a_drill_that_nobody_answers_ends_with_1_and_does_not_count_as_a_failure(
    house: Workplace, backup: ThreadedLoopback
) -> None:
    before, asked = kept(house), len(backup.requests)

    result = house.run(
        "drill", "morning-digest", *FAIL,
        "--fail", "CUSTOM:Third=auth", "--fail", "custom:fourth=bad-request", "--json",
    )  # fmt: skip

    run = json.loads(result.out)
    assert (result.code, run["state"], run["reason"]) == (1, "failed", "auth_dead")
    assert "nobody answered" in result.err
    assert len(backup.requests) == asked
    assert kept(house) == before


def test_only_the_providers_that_are_named_are_kept_from_refreshing(
    house: Workplace, primary: ThreadedLoopback
) -> None:
    """The primary's stale login is really refreshed, and its new tokens are kept."""
    (before,) = house.rows("SELECT generation FROM tokens")

    run = house.ran("drill", "morning-digest", "--fail", "Z.AI=rate_limit")

    (after,) = house.rows("SELECT generation FROM tokens")
    assert (run["served"]["provider"], run["fallback"]) == ("openai-codex", False)
    assert [each["purpose"] for each in run["attempts"]] == ["refresh", "main"]
    assert after["generation"] == before["generation"] + 1
    assert [r.key for r in primary.received(Endpoint.TOKEN)] == ["good"]
