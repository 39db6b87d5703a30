"""When a provider says it can be asked again: from headers, the body, and last its words.

The first trustworthy hint wins, in this order: a header in milliseconds; `retry-after`; a body field; the
provider's reset headers; text. Refused: NaN, zero, the past, and more than eight days, except that a
`quota_window` is capped there. Of several windows only those that are used up count, the latest of them.
Where the answer speaks of a per-day quota, what Gemini says of seconds is not believed, wherever it stands.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Final, Protocol

from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.providers.answer import WaitHint
from jobs.providers.wait_times import (
    DURATION,
    duration,
    epoch,
    go_duration,
    milliseconds,
    moment_or_epoch,
    number,
    plain_seconds,
    protobuf_duration,
    seconds_or_date,
    timestamp,
)

FARTHEST: Final = timedelta(days=8)
_SHORTEST_SECONDS: Final = 0.001
_USED_UP_PERCENT: Final = 100
_Found = Iterator[tuple[str, float | None]]
_Headers = Mapping[str, str]


class _Reader(Protocol):
    def __call__(self, value: Any, *, now: datetime) -> float | None: ...


# Z.AI states Beijing time without saying so (spec/errors.md; hugalafutro/model-hotel#955 found the same).
_ZONES: Final[Mapping[str, timezone]] = MappingProxyType({"zai": timezone(timedelta(hours=8))})

_MILLISECOND_HEADERS: Final = ("retry-after-ms", "x-ms-retry-after-ms")

_BODY_FIELDS: Final[tuple[tuple[tuple[str, ...], _Reader], ...]] = (
    (("resets_at",), moment_or_epoch),
    (("resets_in_seconds",), plain_seconds),
    (("metadata", "headers", "x-ratelimit-reset"), epoch),
    (("metadata", "resets_at"), moment_or_epoch),
)

# reset header, header that tells whether the window is used up, what that one says when it is, reader;
# the windows of an hour are those of Nous (NousResearch/hermes-agent#6541)
_WINDOWS: Final[tuple[tuple[str, str, str, _Reader], ...]] = (
    *(
        (f"x-ratelimit-reset-{each}", f"x-ratelimit-remaining-{each}", "0", go_duration)
        for each in ("requests", "tokens", "requests-1h", "tokens-1h")
    ),
    *(
        (f"anthropic-ratelimit-{each}-reset", f"anthropic-ratelimit-{each}-remaining", "0", moment_or_epoch)
        for each in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
    *(
        (
            f"anthropic-ratelimit-unified-{each}-reset",
            f"anthropic-ratelimit-unified-{each}-status",
            "rejected",
            epoch,
        )
        for each in ("5h", "7d")
    ),
)

# the same, where a reset also counts without the header that tells
_SINGLE_WINDOWS: Final[tuple[tuple[str, str, str, _Reader], ...]] = (
    ("x-ratelimit-reset", "x-ratelimit-remaining", "0", epoch),
    ("anthropic-ratelimit-unified-reset", "anthropic-ratelimit-unified-status", "rejected", moment_or_epoch),
    ("x-rate-limit-reset-tokens", "x-rate-limit-remaining-tokens", "0", plain_seconds),
)

_DATE: Final = (
    r"(\d{4}-\d{2}-\d{2})[T ](?:at )?(\d{2}:\d{2}(?::\d{2})?(?:\.\d{1,6})?)"
    r"(?:\s?(UTC|GMT|Z|[+-]\d{2}:?\d{2})(?![+\-\w]))?"
)
_TEXT_DURATIONS: Final = re.compile(
    r"\b(?:try again|retry(?:ing)?|resets?|available(?: again)?|wait)\s{1,3}(?:(?:in|after|for)\s{0,3})?"
    rf"(?:about\s|approximately\s|~)?({DURATION})",
    re.IGNORECASE | re.ASCII,
)
_CHINESE_UNITS: Final[Mapping[str, int]] = MappingProxyType({"秒": 1, "分": 60, "小时": 3600, "天": 86400})
_CHINESE_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s?(秒|分|小时|天)钟?[之以]?后")
_TEXT_MOMENTS: Final = re.compile(
    rf"(?:resets? (?:at|on):?|regain access (?:on|at)|try again (?:at|on)|将(?:在|于))\s?{_DATE}",
    re.IGNORECASE,
)


def wait_hint(
    headers: _Headers,
    objects: Sequence[Mapping[str, Any]],
    message: str,
    *,
    provider: ProviderName,
    error_class: ErrorClass,
    now: datetime,
) -> WaitHint | None:
    """Return the first trustworthy hint, or None.

    `headers` has lower-case names; `objects` are the error objects of the body; `message` is what the
    provider said. `source` of the hint names the header or field, or is `text`.
    """
    if any(_speaks_of_days(each.get("details")) for each in objects):
        objects, message = (), ""
    sources: tuple[Callable[[], _Found], ...] = (
        lambda: _plain_headers(headers, now=now),
        lambda: _body_fields(objects, now=now),
        lambda: _reset_headers(headers, now=now),
        lambda: _words(message, provider, now=now),
    )
    for source in sources:
        for name, seconds in source():
            believed = _believed(seconds, error_class)
            if believed is not None:
                return WaitHint((now + timedelta(seconds=believed)).astimezone(UTC), name)
    return None


def should_retry(headers: _Headers) -> bool | None:
    """Return what `x-should-retry` orders (OpenAI, Anthropic), or None when it orders nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _believed(seconds: float | None, error_class: ErrorClass) -> float | None:
    farthest = FARTHEST.total_seconds()
    if seconds is None or not seconds >= _SHORTEST_SECONDS:
        return None
    if seconds > farthest:
        return farthest if error_class is ErrorClass.QUOTA_WINDOW else None
    return seconds


def _plain_headers(headers: _Headers, *, now: datetime) -> _Found:
    for name in _MILLISECOND_HEADERS:
        yield name, milliseconds(headers.get(name), now=now)
    yield "retry-after", seconds_or_date(headers.get("retry-after"), now=now)


def _body_fields(objects: Sequence[Mapping[str, Any]], *, now: datetime) -> _Found:
    for each in objects:
        for path, reader in _BODY_FIELDS:
            if (value := _at(each, path)) is not None:
                yield ".".join(path), reader(value, now=now)
        yield "details.retryDelay", _retry_delay(each.get("details"), now=now)


def _at(data: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value at `path`; the name of a header is sought in any case."""
    value: Any = data
    for key in path:
        if not isinstance(value, Mapping):
            return None
        if "-" in key:
            value = next((inner for name, inner in value.items() if str(name).lower() == key), None)
        else:
            value = value.get(key)
    return value


def _retry_delay(details: Any, *, now: datetime) -> float | None:
    """Read Gemini's `google.rpc.RetryInfo`."""
    delays = (protobuf_duration(entry.get("retryDelay"), now=now) for entry in _entries(details))
    return next((delay for delay in delays if delay is not None), None)


def _speaks_of_days(details: Any) -> bool:
    """Say whether a `google.rpc.QuotaFailure` names a per-day quota."""
    return any("perday" in quota.lower() for entry in _entries(details) for quota in _quota_ids(entry))


def _entries(details: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in details if isinstance(entry, Mapping)] if isinstance(details, list) else []


def _quota_ids(entry: Mapping[str, Any]) -> Iterator[str]:
    violations = entry.get("violations")
    for violation in violations if isinstance(violations, list) else []:
        if isinstance(violation, Mapping):
            yield str(violation.get("quotaId") or "")


def _reset_headers(headers: _Headers, *, now: datetime) -> _Found:
    yield _latest(_used_up_windows(headers, now=now))
    yield _latest(_codex_windows(headers, now=now))
    for name, state, used_up, reader in _SINGLE_WINDOWS:
        if name in headers and _says(headers.get(state, used_up), used_up):
            yield name, reader(headers[name], now=now)


def _says(value: str, used_up: str) -> bool:
    return value.strip().lower() == used_up or (used_up == "0" and number(value) == 0)


def _latest(found: _Found) -> tuple[str, float | None]:
    return max(found, key=lambda each: each[1] or 0, default=("", None))


def _used_up_windows(headers: _Headers, *, now: datetime) -> _Found:
    for name, state, used_up, reader in _WINDOWS:
        if name in headers and _says(headers.get(state, ""), used_up):
            yield name, reader(headers[name], now=now)


def _codex_windows(headers: _Headers, *, now: datetime) -> _Found:
    for window in ("primary", "secondary"):
        used = number(headers.get(f"x-codex-{window}-used-percent"))
        if used is None or used < _USED_UP_PERCENT:
            continue
        at, after = f"x-codex-{window}-reset-at", f"x-codex-{window}-reset-after-seconds"
        moment = epoch(headers.get(at), now=now)
        if moment is not None and moment > 0:
            yield at, moment
        else:
            yield after, plain_seconds(headers.get(after), now=now)


def _words(message: str, provider: ProviderName, *, now: datetime) -> _Found:
    if found := _TEXT_DURATIONS.search(message):
        yield "text", duration(found.group(1))
    if found := _CHINESE_DURATION.search(message):
        yield "text", float(found.group(1)) * _CHINESE_UNITS[found.group(2)]
    if found := _TEXT_MOMENTS.search(message):
        date, time, zone = found.groups()
        offset = {"UTC": "+00:00", "GMT": "+00:00", "Z": "+00:00"}.get((zone or "").upper(), zone or "")
        yield "text", timestamp(f"{date}T{time}{offset}", now=now, zone=_ZONES.get(provider))
