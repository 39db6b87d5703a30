"""`promptd classify`: an answer in, its class, rule, wait, mark and recovery out."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli_ground import World

NOW = "2026-05-01T12:00:00Z"


def _classified(tmp_path: Path, *args: str, body: bytes = b"", config: str | None = None) -> Any:
    world = World(tmp_path, migrated=False, **({"config": config} if config else {}))
    if config is None:
        world.file.write_text("state_dir: state\n")
    given = ("--body", "-") if body else ()
    return world.json("classify", "classify", "--now", NOW, *args, *given, stdin=body)


def test_a_money_code_marks_the_group_for_an_hour(tmp_path: Path) -> None:
    """Z.AI's 1113: balance empty."""
    body = b'{"error": {"code": "1113", "message": "Insufficient balance"}}'
    assert _classified(tmp_path, "--provider", "z.ai", "--status", "429", body=body) == {
        "class": "quota_billing",
        "rule": "zai/1113",
        "provider": "zai",
        "wait": None,
        "wait_until": None,
        "wait_source": None,
        "scope": "group",
        "mark_until": "2026-05-01T13:00:00Z",
        "recovery": "next_credential",
    }


def test_a_hint_is_told_in_seconds_with_its_moment_and_source(tmp_path: Path) -> None:
    """The mark of a rate limit lasts until the hint."""
    said = _classified(tmp_path, "--provider", "groq", "--status", "429", "--header", "Retry-After: 40")
    assert (said["class"], said["wait"], said["wait_source"]) == ("rate_limit", 40.0, "retry-after")
    assert said["wait_until"] == said["mark_until"] == "2026-05-01T12:00:40Z"


@pytest.mark.parametrize(
    ("args", "body", "expected"),
    [
        (("openai", "--status", "401"), b"", ("auth", "credential", "next_credential")),
        (("codex", "--status", "401"), b"", ("auth", "credential", "refresh")),
        (
            ("codex", "--status", "400", "--token-endpoint"),
            b'{"error": "invalid_grant"}',
            ("auth_dead", "credential", "next_credential"),
        ),
        (("openai", "--exception", "timeout"), b"", ("timeout", "endpoint", "next_target")),
        (("openai", "--exception", "connection"), b"", ("connection", "endpoint", "retry")),
        (("openai", "--exception", "tls"), b"", ("connection", "endpoint", "next_target")),
        (
            ("openai", "--status", "400"),
            b'{"error": {"code": "context_length_exceeded"}}',
            ("context_overflow", None, "stop"),
        ),
    ],
)
def test_the_class_says_what_is_marked_and_what_follows(
    tmp_path: Path, args: tuple[str, ...], body: bytes, expected: tuple[str, str, str]
) -> None:
    """The table of recovery, as a person can ask it."""
    said = _classified(tmp_path, "--provider", *args, body=body)
    assert (said["class"], said["scope"], said["recovery"]) == expected


EVENTS = ("--header", "content-type: text/event-stream; charset=utf-8")
CHUNK = (
    b'data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
)
STREAMS: dict[str, tuple[tuple[str, ...], bytes, str]] = {
    "one that ended": (EVENTS, CHUNK + b"data: [DONE]\n\n", "none"),
    "one that was cut": (EVENTS, CHUNK, "invalid_response"),
    "an error after half a text": (EVENTS, CHUNK + b'data: {"error": {"code": "1113"}}\n\n', "quota_billing"),
    "an error nobody called a stream": ((), CHUNK + b'error: {"error": {"code": "1113"}}\n', "quota_billing"),
}


@pytest.mark.parametrize(("args", "body", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_stream_is_judged_as_the_client_would_hand_it_on(
    tmp_path: Path, args: tuple[str, ...], body: bytes, expected: str
) -> None:
    """By its content type; an error event is found without one."""
    said = _classified(tmp_path, "--provider", "zai", "--status", "200", *args, body=body)
    assert said["class"] == expected


def test_a_provider_that_forbids_a_retry_is_obeyed(tmp_path: Path) -> None:
    """`x-should-retry: false` leaves the next target; `true` grants nothing that the table does not."""
    asked = ("--provider", "openai", "--status", "500", "--header")

    assert _classified(tmp_path, *asked, "x-should-retry: true")["recovery"] == "retry"
    assert _classified(tmp_path, *asked, "x-should-retry: false")["recovery"] == "next_target"


def test_a_mark_ends_at_the_stated_reset_of_a_window_but_not_of_money(tmp_path: Path) -> None:
    """A top-up can come at any time; a header repeats, in any case, with = or a colon."""
    headers = ("--header", "Retry-After=86400", "--header", "X-Kind: any")
    window = b'{"error": {"code": "1308", "message": "x"}}'
    money = b'{"error": {"code": "1113", "message": "x"}}'
    asked = ("--provider", "zai", "--status", "429", *headers)

    assert _classified(tmp_path, *asked, body=window)["mark_until"] == "2026-05-02T12:00:00Z"
    assert _classified(tmp_path, *asked, body=money)["mark_until"] == "2026-05-01T13:00:00Z"


def test_a_class_that_is_counted_first_marks_nothing_yet(tmp_path: Path) -> None:
    """Three in a row; a class without a mark says nothing at all."""
    broken = _classified(tmp_path, "--provider", "openai", "--status", "500")
    wrong = _classified(tmp_path, "--provider", "openai", "--status", "400")

    assert (broken["scope"], broken["mark_until"]) == ("endpoint", None)
    assert (wrong["scope"], wrong["mark_until"], wrong["recovery"]) == (None, None, "next_target")


def test_people_are_told_in_words(tmp_path: Path) -> None:
    """The class, the rule, the wait and its source, what is marked and what follows."""
    world = World(tmp_path, migrated=False)
    world.file.write_text("state_dir: state\n")
    said = world.run(
        "classify", "--provider", "groq", "--status", "429", "--header", "retry-after: 90", "--now", NOW
    )

    assert said.code == 0
    for words in ("rate_limit", "1 min 30 s", "retry-after", "group and model"):
        assert words in said.out


def test_an_answer_that_is_no_error_is_none(tmp_path: Path) -> None:
    """No scope, no mark, no recovery."""
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    said = _classified(tmp_path, "--provider", "openrouter", "--status", "200", body=body)
    assert (said["class"], said["scope"], said["mark_until"], said["recovery"]) == ("none", None, None, None)


def test_a_rule_of_the_configuration_is_tried_first(tmp_path: Path) -> None:
    """Users' own rules decide before the built-in ones."""
    config = "state_dir: s\nproviders: {zai: {errors: [{status: 418, class: quota_window}]}}\n"
    said = _classified(tmp_path, "--provider", "zai", "--status", "418", config=config)
    assert (said["class"], said["rule"].startswith("zai/user-")) == ("quota_window", True)


@pytest.mark.parametrize(
    "args",
    [
        ("--provider", "zai"),
        ("--provider", "zai", "--status", "500", "--exception", "tls"),
        ("--provider", "nobody-at-all", "--status", "500"),
        ("--provider", "zai", "--status", "500", "--header", "no value"),
        ("--provider", "zai", "--exception", "tls", "--header", "retry-after: 5"),
        ("--provider", "zai", "--exception", "nonsense"),
        ("--provider", "zai", "--status", "500", "--body", "/no/such/file"),
        ("--provider", "zai", "--status", "500", "--now", "soon"),
        ("--status", "500"),
    ],
)
def test_what_makes_no_question_is_a_usage_error(tmp_path: Path, args: tuple[str, ...]) -> None:
    """One line, exit code 2."""
    said = World(tmp_path, migrated=False).run("classify", *args)
    assert (said.code, said.err.count("\n")) == (2, 1)
