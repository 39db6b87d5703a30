"""When a provider can be asked again: every format it may be written in, the order of trust, the refusals."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.wait_hints import should_retry, wait_hint

NOW: Final = datetime(2026, 9, 4, 8, tzinfo=UTC)
EPOCH: Final = int(NOW.timestamp())


def waited(
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    text: str = "",
    *,
    provider: str = "custom:box",
    error_class: ErrorClass = ErrorClass.RATE_LIMIT,
) -> float | None:
    """Return the seconds that a hint asks for, None without a hint."""
    hint = wait_hint(
        headers or {}, [body or {}], text, provider=ProviderName(provider), error_class=error_class, now=NOW
    )
    return None if hint is None else (hint.until - NOW).total_seconds()


HEADERS: Final[dict[str, tuple[dict[str, str], float]]] = {
    "milliseconds": ({"retry-after-ms": "1500"}, 1.5),
    "Azure's milliseconds": ({"x-ms-retry-after-ms": "250"}, 0.25),
    "whole seconds": ({"retry-after": "20"}, 20),
    "seconds with a fraction": ({"retry-after": "0.75"}, 0.75),
    "an HTTP date": ({"retry-after": "Fri, 04 Sep 2026 08:01:30 GMT"}, 90),
    "Go milliseconds": ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12ms"}, 0.012),
    "Go minutes": ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
    "Go fractions": ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
    "Azure's seconds": ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "17"}, 17),
    "Azure's second hyphen": ({"x-rate-limit-reset-tokens": "11"}, 11),
    "epoch seconds": ({"x-ratelimit-reset": str(EPOCH + 30)}, 30),
    "epoch milliseconds": ({"x-ratelimit-reset": str((EPOCH + 30) * 1000)}, 30),
    "Anthropic's window": (
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-09-04T08:00:45Z",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-09-04T08:09:00Z",
        },
        45,
    ),
    "an hour's window of Nous": (
        {
            "x-ratelimit-remaining-requests": "12",
            "x-ratelimit-reset-requests": "45.5",
            "x-ratelimit-remaining-requests-1h": "0",
            "x-ratelimit-reset-requests-1h": "3500.0",
        },
        3500,
    ),
    "the one of Anthropic's unified windows that rejects": (
        {
            "anthropic-ratelimit-unified-5h-status": "rejected",
            "anthropic-ratelimit-unified-5h-reset": str(EPOCH + 900),
            "anthropic-ratelimit-unified-7d-status": "allowed_warning",
            "anthropic-ratelimit-unified-7d-reset": str(EPOCH + 90000),
        },
        900,
    ),
    "Anthropic's unified window": ({"anthropic-ratelimit-unified-reset": str(EPOCH + 3600)}, 3600),
    "Codex's epoch": (
        {"x-codex-primary-used-percent": "100", "x-codex-primary-reset-at": str(EPOCH + 60)},
        60,
    ),
    "Codex's seconds": (
        {"x-codex-secondary-used-percent": "100.0", "x-codex-secondary-reset-after-seconds": "61"},
        61,
    ),
}


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_a_header_is_read_in_its_format(headers: dict[str, str], expected: float) -> None:
    """Every header of the table of wait hints yields its wait."""
    assert waited(headers) == pytest.approx(expected)


def _gemini(delay: str, quota: str) -> dict[str, Any]:
    violation = {"quotaMetric": "x", "quotaId": quota}
    return {
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
        ]
    }


BODIES: Final[dict[str, tuple[dict[str, Any], float]]] = {
    "Codex's epoch": ({"resets_at": EPOCH + 40}, 40),
    "Codex's seconds": ({"resets_in_seconds": 41}, 41),
    "a past epoch beside seconds": ({"resets_at": EPOCH - 5, "resets_in_seconds": 41}, 41),
    "Gemini's delay": (_gemini("46s", "GenerateRequestsPerMinutePerProject"), 46),
    "Gemini's fraction": (_gemini("3.5s", ""), 3.5),
    "OpenRouter's headers": ({"metadata": {"headers": {"X-RateLimit-Reset": str((EPOCH + 50) * 1000)}}}, 50),
    "OpenRouter's time": ({"metadata": {"resets_at": "2026-09-04T09:00:00.000Z"}}, 3600),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_body_field_is_read_in_its_format(body: dict[str, Any], expected: float) -> None:
    """Every body field of the table of wait hints yields its wait."""
    assert waited(body=body) == pytest.approx(expected)


TEXTS: Final[dict[str, float]] = {
    "Rate limit reached. Please try again in 20s. Visit the site.": 20,
    "Please try again in 174ms.": 0.174,
    "Please try again in 6m0s.": 360,
    "please try again after 1 seconds": 1,
    "Please retry after 45 seconds.": 45,
    "Please retry in 10h17m5.7s.": 37025.7,
    "5-hour limit reached, resets in 4hr 5min": 14700,
    "Please try again in about 5 minutes.": 300,
    "Please wait 30 seconds before the next request.": 30,
    "请求过于频繁，请 30 秒后重试": 30,
    "请在1.5小时后再试": 5400,
    "Limit resets at: 2026-09-04 08:00:30 UTC": 30,
    "Try again at 2026-09-04T10:01:00+02:00": 60,
    "Try again in 60 seconds": 60,
    "No deployments available. Try again in 2 hours, 3 minutes and 4 seconds.": 7384,
    "Your limit will reset at 2026-09-04T08:00:30Z": 30,
    "You will regain access on 2026-09-05 at 00:00 UTC.": 57600,
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_words_are_read_in_their_format(text: str, expected: float) -> None:
    """Every sentence of the table of wait hints yields its wait."""
    assert waited(text=text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["Your limit will reset at 2026-09-04 19:01:25", "您的限额将在 2026-09-04 19:01:25 重置。"]
)
def test_a_time_without_a_zone_counts_where_the_zone_is_known(text: str) -> None:
    """Z.AI states Beijing time; from anybody else the same words mean nothing."""
    assert waited(text=text, provider="zai") == 3 * 3600 + 85
    assert waited(text=text, provider="openai") is None


@pytest.mark.parametrize("unknown", ["UTC+3", "CEST", "+8"])
def test_a_zone_that_is_not_understood_is_not_taken_for_utc(unknown: str) -> None:
    """A wrong zone is worse than none."""
    assert waited(text=f"will reset at 2026-09-04 19:01:25 {unknown}") is None


def test_the_order_of_trust_is_milliseconds_header_body_reset_header_text() -> None:
    """Taking the best source away leaves the next one."""
    headers = {"retry-after-ms": "1000", "retry-after": "2", "x-ratelimit-reset": str(EPOCH + 4)}
    body = {"resets_in_seconds": 3}
    found = []

    for name in ("retry-after-ms", "retry-after", "body", "x-ratelimit-reset", "text"):
        found.append(waited(headers, body, "try again in 5s"))
        headers.pop(name, None)
        body = {} if name == "body" else body

    assert found == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-1",
        "nan",
        "inf",
        "1e3",
        "soon",
        "",
        "٣",
        "1_0",
        "0\x1f",
        "Fri, 04 Sep 2026 07:00:00 GMT",
        "9" * 400,
    ],
)
def test_a_value_that_is_no_time_ahead_is_refused(value: str) -> None:
    """Zero, the past, NaN and words leave the next source to speak."""
    assert waited({"retry-after": value}) is None
    assert waited({"retry-after": value}, text="try again in 5s") == 5


@pytest.mark.parametrize("value", [True, [], {}, float("nan"), float("inf"), 10**400, 2e-30, -3, None, "x"])
def test_a_body_field_that_is_no_time_ahead_is_refused(value: object) -> None:
    """JSON can hold anything under a known name."""
    assert waited(body={"resets_in_seconds": value, "resets_at": value}) is None


def test_more_than_eight_days_is_refused() -> None:
    """Nobody closes a key for a month because of one header."""
    assert waited({"retry-after": str(8 * 86400 + 1)}) is None


def test_a_quota_window_is_capped_at_eight_days() -> None:
    """Some plans state 27 days; a reset may come earlier."""
    seconds = waited(body={"resets_in_seconds": 27 * 86400}, error_class=ErrorClass.QUOTA_WINDOW)

    assert seconds == timedelta(days=8).total_seconds()


def test_the_delay_of_a_per_day_quota_is_not_believed() -> None:
    """Gemini speaks of seconds there, and means tomorrow; its words repeat the figure."""
    body = _gemini("46s", "GenerateRequestsPerDayPerProjectPerModel-FreeTier")

    assert waited(body=body, text="You exceeded your current quota. Please retry in 46.4s.") is None
    assert waited({"retry-after": "3600"}, body) == 3600


def test_a_window_that_is_not_used_up_does_not_count() -> None:
    """Its reset is no time at which anything opens."""
    headers = {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "9m",
        "x-codex-primary-used-percent": "99",
        "x-codex-primary-reset-at": str(EPOCH + 60),
        "x-ratelimit-remaining": "3",
        "x-ratelimit-reset": str(EPOCH + 60),
        "anthropic-ratelimit-unified-status": "allowed",
        "anthropic-ratelimit-unified-reset": str(EPOCH + 60),
    }

    assert waited(headers) is None


def test_of_two_used_up_windows_the_later_one_counts() -> None:
    """Both must open before a request can pass."""
    headers = {f"x-codex-{window}-used-percent": "100" for window in ("primary", "secondary")}
    headers |= {"x-codex-primary-reset-after-seconds": "10", "x-codex-secondary-reset-after-seconds": "20"}

    assert waited(headers) == 20


def test_azures_minus_one_is_no_information() -> None:
    """It stands there on every answer."""
    assert waited({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "-1"}) is None


def test_a_hint_is_stored_in_utc_with_its_source() -> None:
    """The mark says until when, and who said so."""
    hint = wait_hint(
        {"retry-after": "9"},
        [],
        "",
        provider=ProviderName("openai"),
        error_class=ErrorClass.RATE_LIMIT,
        now=NOW.astimezone(),
    )

    assert hint is not None
    assert (hint.source, hint.until.tzinfo, hint.until) == ("retry-after", UTC, NOW + timedelta(seconds=9))


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("False", False), ("maybe", None), (None, None)]
)
def test_x_should_retry_orders_or_says_nothing(value: str | None, expected: bool | None) -> None:
    """Anything but true and false is no order."""
    assert should_retry({} if value is None else {"x-should-retry": value}) is expected
