"""Whatever comes back is classified: exactly one verdict, never an exception, and quickly."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.hang_guard import ends

from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, Verdict
from jobs.providers.classify import classify, completion_of
from jobs.providers.rules import Rule, Rules

NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
# A user's rule with every key, so that those are tried too, and one for everybody's token endpoint.
USERS: Final = [
    Rule.model_validate(
        {
            "status": [429, 503],
            "code": ["a", 1],
            "type": "b",
            "text": "c+$",
            "header": {"x-a": True, "retry-after": "1"},
            "field": {"metadata.a.b": True},
            "class": "overloaded",
        }
    ),
    Rule.model_validate({"origin": "token", "shape": "events", "class": "permission"}),
]
RULES: Final = Rules.load_builtin().with_user_rules(ProviderName("custom:ruled"), USERS)
PROVIDERS: Final = sorted({name for rule in RULES.builtin for name in rule.provider} | {"custom:ruled", "x"})


def verdict(
    status: int,
    body: Any,
    *,
    provider: str,
    headers: Mapping[str, str] | None = None,
    origin: Origin = Origin.MODEL,
) -> Verdict:
    """Classify an answer; a body that is no bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(Answer(status, headers or {}, raw, origin=origin), ProviderName(provider), RULES, now=NOW)


def assert_is_one_verdict(status: int, result: Verdict) -> None:
    """It has a class, or is that of a 2xx; what is stored of it can be stored, and its wait is believable."""
    assert isinstance(result, Verdict)
    assert result.error_class is not None or 200 <= status < 300
    assert len(result.message) <= 200
    assert len(result.code or "") <= 100
    assert f"{result.message}{result.code}{result.rule}".encode()
    assert result.wait is None or NOW < result.wait.until <= NOW + timedelta(days=8)
    assert result.should_retry in (True, False, None)


_KNOWN_KEYS: Final = [
    "error",
    "errors",
    "code",
    "type",
    "status",
    "status_code",
    "message",
    "detail",
    "details",
    "metadata",
    "raw",
    "provider_name",
    "limit_source",
    "reasons",
    "innererror",
    "param",
    "statusCode",
    "response",
    "choices",
    "output",
    "object",
    "headers",
    "violations",
    "quotaId",
    "retryDelay",
    "resets_at",
    "resets_in_seconds",
    "finish_reason",
    "content",
    "usage",
]
_WORDS: Final = [
    "1308",
    "insufficient_quota",
    "RESOURCE_EXHAUSTED",
    "invalid_grant",
    "content_filter",
    "completed",
    "failed",
    "46s",
    "GenerateRequestsPerDay",
    "try again in 1m 2s",
    "will reset at 2026-09-10 04:24:36",
    "将在 9999-99-99 99:99:99 重置",
    "resets in 999999999h999999999h",
    "\ud800",
    '{"error": {"status": 429}}',
]
_NUMBERS: Final = st.integers() | st.floats() | st.sampled_from([10**300, -(10**300), 429, 503, 200, 1e308])
_JSON: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=30) | st.sampled_from(_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KNOWN_KEYS), inner, max_size=5)
        | st.dictionaries(st.sampled_from(_KNOWN_KEYS), inner, max_size=2).map(json.dumps)
    ),
    max_leaves=12,
)
_EVENT_LINES: Final = st.sampled_from(["event: error", "event: x", "data: [DONE]", "", ": ping", "id: 1"])
_EVENTS: Final = st.lists(
    _EVENT_LINES | st.tuples(st.sampled_from(["data", "error"]), _JSON.map(json.dumps)).map(": ".join),
    max_size=6,
).map("\n".join)
_BODIES: Final = (
    st.binary(max_size=200)
    | _JSON.map(lambda value: json.dumps(value).encode())
    | _EVENTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text(max_size=60).map(lambda text: b"<html><title>" + text.encode("utf-8", "surrogatepass"))
)
_HEADER_NAMES: Final = [
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-should-retry",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-tokens",
    "x-rate-limit-reset-tokens",
    "x-codex-primary-used-percent",
    "x-codex-primary-reset-at",
    "x-codex-primary-reset-after-seconds",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-unified-reset",
    "content-type",
    "x-a",
]
_HEADER_VALUES: Final = [
    "",
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "1e999",
    "100",
    "9" * 19,
    "9" * 5000,
    "1m" * 2000,
    "true",
    "FALSE ",
    "\x00",
    "\ud800",
    "١٢",
    "Wed, 21 Oct 2026 07:28:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "Fri, 04 Sep 2026 08:00:30 GMT " + "(" * 3000,
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "2026-W36-5",
]
_HEADERS: Final = st.dictionaries(
    st.sampled_from(_HEADER_NAMES), st.text(max_size=30) | st.sampled_from(_HEADER_VALUES), max_size=6
)


@settings(max_examples=600, deadline=None)
@given(
    status=st.integers(-10, 1100) | st.sampled_from([200, 400, 401, 402, 403, 404, 429, 500, 503]),
    headers=_HEADERS,
    body=_BODIES,
    provider=st.sampled_from(PROVIDERS),
    origin=st.sampled_from(Origin),
)
@example(200, {}, b"data: {}\n\nerror:", "x", Origin.MODEL)
@example(429, {"retry-after": "9" * 5000}, b"\xff\xfe\x00{", "openai", Origin.MODEL)
def test_any_answer_yields_exactly_one_verdict(
    status: int, headers: dict[str, str], body: bytes, provider: str, origin: Origin
) -> None:
    """No status, header or body raises; only a 2xx can be no error, and then it can be read as an answer."""
    result = verdict(status, body, provider=provider, headers=headers, origin=origin)

    assert_is_one_verdict(status, result)
    if result.error_class is None and origin is Origin.MODEL:
        assert completion_of(Answer(status, headers, body)).text.strip()


@settings(max_examples=100, deadline=None)
@given(body=_BODIES, provider=st.sampled_from(PROVIDERS), status=st.sampled_from([200, 403, 429, 500]))
def test_the_same_answer_always_gets_the_same_verdict(body: bytes, provider: str, status: int) -> None:
    """A verdict depends on the answer and the time, on nothing else."""
    assert verdict(status, body, provider=provider) == verdict(status, body, provider=provider)


DEEP: Final[dict[str, str]] = {
    "bare": "%s",
    "error": '{"error": %s}',
    "message": '{"error": {"message": %s}}',
    "asked for by a field rule": '{"error": {"metadata": {"reasons": %s, "provider_name": %s}}}',
    "hints": '{"error": {"details": %s, "resets_at": %s}}',
    "content": '{"choices": [{"message": {"content": %s}}]}',
    "output": '{"status": "completed", "output": %s}',
    "event": 'data: {"error": %s}\n\n',
}


@pytest.mark.parametrize("shape", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"error":', "}")], ids=["lists", "objects"])
def test_a_body_as_deep_as_json_can_just_be_read_is_classified(
    shape: str, opening: str, closing: str
) -> None:
    """Around the depth at which the parser gives up, what was read must not break what looks at it."""
    for depth in [5, *range(880, 1010)]:
        deep = f"{opening * depth}0{closing * depth}"
        body = (shape.replace("%s", deep)).encode()
        for status in (200, 403, 429):
            assert_is_one_verdict(status, verdict(status, body, provider="openrouter"))


LARGE: Final[dict[str, bytes]] = {
    "an integer of more digits than Python reads": b'{"error": {"code": ' + b"9" * 5000 + b"}}",
    "an integer of as many as it reads": b'{"error": {"code": ' + b"9" * 4300 + b', "resets_at": 1e999}}',
    "digits in the message": json.dumps({"error": {"message": "9" * 1_000_000}}).encode(),
    "durations in the message": json.dumps(
        {"error": {"message": "try again in " + "1m " * 300_000}}
    ).encode(),
    "the start of a sentence, again and again": json.dumps(
        {"error": {"message": "litellm: " * 99_999}}
    ).encode(),
    "JSON in JSON in JSON": json.dumps(json.dumps(json.dumps({"error": "\\" * 100_000}))).encode(),
    "what looks like JSON": json.dumps({"error": {"message": "{" + "}" * 500_000}}).encode(),
    "blanks": b" " * 2_000_000,
    "brackets": b"[" * 2_000_000,
    "events that are none": b"data: x\n\n" * 200_000,
    "comments": b":\n" * 500_000,
    "a comment of HTML": b"<!--" + b"-" * 2_000_000,
    "titles": b"<html>" + b"<title " * 200_000,
    "keys": json.dumps({"error": {str(number): number for number in range(50_000)}}).encode(),
    "quotas": json.dumps({"error": {"details": [{"violations": [{"quotaId": "x"}] * 50_000}]}}).encode(),
    "no UTF-8": b"\xff" * 1_000_000,
    "lone surrogates": b'{"error": {"message": "' + b"\\ud800" * 100_000 + b'", "code": "\\ud800"}}',
}


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("origin", Origin)
def test_a_large_hostile_body_is_classified_in_bounded_time(body: bytes, origin: Origin) -> None:
    """What a classification costs grows with the length of the body, never with a power of it."""
    with ends():
        for status in (200, 429, 503):
            assert_is_one_verdict(status, verdict(status, body, provider="gemini", origin=origin))
