"""Whatever comes back is classified: exactly one verdict, never an exception, and quickly."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.names import ProviderName
from jobs.providers.answer import Answer, Origin, Verdict
from jobs.providers.classify import classify
from jobs.providers.rules import Rules

NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
RULES: Final = Rules.load_builtin()


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


def test_a_classification_is_quick() -> None:
    """A run of a thousand stays within 0.1 ms each, with room for a slow machine."""
    body = {"error": {"code": "1308", "message": "Your limit will reset at 2026-09-04 19:01:25"}}
    verdict(429, body, provider="zai")

    start = perf_counter()
    for _ in range(1000):
        verdict(429, body, provider="zai")

    assert perf_counter() - start < 0.5


_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "code",
                    "type",
                    "status",
                    "message",
                    "detail",
                    "metadata",
                    "raw",
                    "choices",
                    "output",
                    "object",
                    "headers",
                    "details",
                    "retryDelay",
                    "resets_at",
                    "resets_in_seconds",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_BODIES: Final = st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode())
_HEADERS: Final = st.dictionaries(
    st.sampled_from(
        [
            "retry-after",
            "retry-after-ms",
            "x-ratelimit-reset",
            "x-ratelimit-reset-tokens",
            "x-ratelimit-remaining-tokens",
            "x-codex-primary-used-percent",
            "x-codex-primary-reset-at",
            "anthropic-ratelimit-requests-reset",
            "anthropic-ratelimit-requests-remaining",
        ]
    ),
    st.text(max_size=30)
    | st.sampled_from(["0", "-1", "nan", "inf", "1e999", "100", "9" * 19, "Wed, 21 Oct 2026 07:28:00 GMT"]),
)


@settings(max_examples=300, deadline=None)
@given(
    status=st.integers(-10, 1100),
    headers=_HEADERS,
    body=_BODIES,
    provider=st.sampled_from(["openai", "openai-codex", "openrouter", "zai", "custom:box"]),
    origin=st.sampled_from(Origin),
)
def test_any_answer_yields_exactly_one_verdict(
    status: int, headers: dict[str, str], body: bytes, provider: str, origin: Origin
) -> None:
    """No status, header or body raises, and only a 2xx can be no error."""
    result = verdict(status, body, provider=provider, headers=headers, origin=origin)

    assert isinstance(result, Verdict)
    assert result.error_class is not None or 200 <= status < 300
    assert len(result.message) <= 200
    assert f"{result.message}{result.code}".encode()
    assert result.wait is None or NOW < result.wait.until <= NOW + timedelta(days=8)
