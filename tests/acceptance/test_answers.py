"""S5, S6: where the line runs between an answer and none, and what is left when nobody has one."""

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

CONFIG = """
model: {{provider: custom, name: first, base_url: "{first}", model: a, api_key: key-1, api_mode: responses}}
fallback_providers: [{{provider: custom, name: second, base_url: "{second}", model: b, api_key: key-2}}]
jobs:
  - {{name: digest, schedule: null, prompt: "Summarise."}}
  - {{name: alone, schedule: null, prompt: "Summarise.", fallback: none}}
"""
OPENAI = """
model: codex/gpt-5.5
fallback_providers: [openai/gpt-5.5, {{provider: custom, name: second, base_url: "{second}", model: b}}]
providers:
  openai-codex:
    base_url: {codex}
    credentials: [{{label: plan, oauth: {{token_url: "{token}"}}}}]
  openai:
    base_url: {first}
    credentials: [{{label: main, key: env:MAIN}}, {{label: spare, key: env:SPARE}}]
jobs: [{{name: digest, schedule: null, prompt: "Summarise."}}]
"""


@pytest.fixture
def two(workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback) -> Workplace:
    """A workplace with two targets."""
    workplace.configure(CONFIG.format(first=primary.base_url, second=backup.base_url))
    return workplace


def test_s5_a_failed_quota_reply_rotates_keys_and_then_leaves_in_either_way_of_answering(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    """The incident itself: a stream that has written half an answer, and a document with output items."""
    workplace.configure(
        OPENAI.format(
            codex=primary.codex_url, token=primary.token_url, first=primary.base_url, second=backup.base_url
        )
    )
    workplace.environ |= {"MAIN": "main-key", "SPARE": "spare-key"}
    workplace.log_in(refresh_token="good", access_token="codex-access")
    spent = Reply.responses_status("failed", code="insufficient_quota", output_text="half an answer")
    primary.script(Endpoint.CODEX, spent)
    primary.script(Endpoint.RESPONSES, spent)
    backup.script(Endpoint.CHAT, Reply.text("a whole answer"))

    run = workplace.ran("job", "run", "digest")

    assert (run["output"], run["fallback_reason"]) == ("a whole answer", "quota_billing")
    failed = [(a["provider"], a["credential"], a["error_class"], a["recovery"]) for a in run["attempts"][:-1]]
    assert failed == [
        ("openai-codex", "plan", "quota_billing", "next_target"),
        ("openai", "main", "quota_billing", "next_credential"),
        ("openai", "spare", "quota_billing", "next_target"),
    ]
    assert [request.key for request in primary.requests] == ["codex-access", "main-key", "spare-key"]
    assert [request.key for request in backup.requests] == ["no-key-required"]


def test_s5_a_length_stop_is_an_answer_that_was_cut(
    two: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.RESPONSES, Reply.text("as far as it goes", finish="length"))

    run = two.ran("job", "run", "digest")

    assert (run["state"], run["output"], run["truncated"]) == ("succeeded", "as far as it goes", True)
    assert (run["served"]["provider"], backup.requests) == ("custom:first", [])


def test_s5_a_length_stop_without_a_word_is_no_answer(
    two: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.RESPONSES, Reply.text("", finish="length"))

    run = two.ran("job", "run", "digest")

    assert (run["served"]["provider"], run["fallback_reason"]) == ("custom:second", "invalid_response")
    assert len(primary.requests) == 2


def test_s6_a_good_second_reply_is_no_fallback(
    two: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.RESPONSES, Reply.raw(200), Reply.text("at last"))

    run = two.ran("job", "run", "digest")

    assert (run["output"], run["served"]["provider"]) == ("at last", "custom:first")
    assert (run["fallback"], run["fallback_reason"]) == (False, None)
    assert [(a["outcome"], a["recovery"]) for a in run["attempts"]] == [
        ("failed", "retry"),
        ("succeeded", None),
    ]
    assert backup.requests == []


def test_s6_a_run_without_any_answer_has_failed_and_has_no_output(
    two: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.RESPONSES, Reply.text(" "))
    backup.script(Endpoint.CHAT, Reply.text(""))

    result = two.run("job", "run", "digest", "--json")

    run = result.json()
    assert (result.code, run["state"], run["reason"]) == (1, "failed", "invalid_response")
    assert (run["output"], run["served"], run["error"]["class"]) == (None, None, "invalid_response")
    assert [a["recovery"] for a in run["attempts"]] == ["retry", "next_target", "retry", "stop"]
    assert (len(primary.requests), len(backup.requests)) == (2, 2)


def test_s6_without_a_next_in_the_chain_the_run_fails_with_the_class(
    two: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback
) -> None:
    primary.script(Endpoint.RESPONSES, Reply.responses_status("cancelled", output_text="half"))

    run = two.ran("job", "run", "alone")

    assert (run["state"], run["reason"], run["output"]) == ("failed", "invalid_response", None)
    assert (len(primary.requests), backup.requests) == (2, [])
