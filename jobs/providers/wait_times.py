"""How providers write durations and moments; every reader returns seconds from now, or None.

None means that the text says nothing that can be believed: it is not of the form, or it is not finite.
Zero, negative and far values are passed on: what may be done with them is `wait_hints`' business.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Final

_NUMBER: Final = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_MILLISECONDS_FROM: Final = 10**11
_SECONDS_FROM: Final = 10**8
_UNITS: Final = {
    "ms": 0.001, "millisecond": 0.001,
    "s": 1, "sec": 1, "second": 1,
    "m": 60, "min": 60, "minute": 60,
    "h": 3600, "hr": 3600, "hour": 3600,
    "d": 86400, "day": 86400,
    "week": 604800,
}  # fmt: skip
_PART: Final = (
    r"\d{1,9}(?:\.\d{1,12})?\s?(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?)"
    r"(?![A-Za-z])"
)
_JOINED_PART: Final = _PART.replace(r"(?![A-Za-z])", "")
DURATION: Final = rf"(?:{_JOINED_PART}(?:\s|,|and){{0,5}}){{0,4}}{_PART}"
_ONE_PART: Final = re.compile(
    r"(\d{1,9}(?:\.\d{1,12})?)\s?(ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?)",
    re.IGNORECASE,
)
_WHOLE_DURATION: Final = re.compile(DURATION, re.IGNORECASE | re.ASCII)


def number(value: Any) -> float | None:
    """Return a finite number that stands alone, as JSON number or text; no NaN, no words, no exponents."""
    match value:
        case bool():
            return None
        case int() | float():
            return float(value) if isinstance(value, float) or abs(value) < 10**20 else None
        case str() if _NUMBER.fullmatch(value.strip()):
            return float(value.strip())
        case _:
            return None


def plain_seconds(value: Any, *, now: datetime) -> float | None:
    """Read `1`, `1.5` or `"20"` as seconds."""
    seconds = number(value)
    return seconds if seconds is not None and isfinite(seconds) else None


def milliseconds(value: Any, *, now: datetime) -> float | None:
    """Read `1500` as milliseconds."""
    figure = plain_seconds(value, now=now)
    return None if figure is None else figure / 1000


def seconds_or_date(value: Any, *, now: datetime) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3): seconds, whole or not, or an HTTP date."""
    seconds = plain_seconds(value, now=now)
    return http_date(value, now=now) if seconds is None else seconds


def http_date(value: Any, *, now: datetime) -> float | None:
    """Read `Wed, 21 Oct 2026 07:28:00 GMT`; a date without a zone is GMT."""
    if not isinstance(value, str):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return _until(moment, now=now, zone=UTC)


def epoch(value: Any, *, now: datetime) -> float | None:
    """Read seconds or milliseconds since 1970, told apart by size; what is too small is neither."""
    figure = plain_seconds(value, now=now)
    if figure is None or figure < _SECONDS_FROM:
        return None
    return (figure / 1000 if figure >= _MILLISECONDS_FROM else figure) - now.timestamp()


def go_duration(value: Any, *, now: datetime) -> float | None:
    """Read a Go duration (`12ms`, `6m0s`, `2m59.56s`), or whole seconds as Azure writes them."""
    if isinstance(value, str) and _WHOLE_DURATION.fullmatch(value.strip()):
        return duration(value)
    return plain_seconds(value, now=now)


def protobuf_duration(value: Any, *, now: datetime) -> float | None:
    """Read `46s`, `34.074824224s`: google.protobuf.Duration in JSON."""
    return plain_seconds(value[:-1], now=now) if isinstance(value, str) and value.endswith("s") else None


def moment_or_epoch(value: Any, *, now: datetime) -> float | None:
    """Read an RFC 3339 time with a zone, or an epoch."""
    since = epoch(value, now=now)
    return timestamp(value, now=now) if since is None else since


def timestamp(value: Any, *, now: datetime, zone: timezone | None = None) -> float | None:
    """Read an RFC 3339 time; one without a zone counts only when `zone` is known."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return _until(moment, now=now, zone=zone)


def duration(text: str) -> float:
    """Add up the parts of a text that `DURATION` matched: `10h17m5.7s`, `4hr 5min`, `1 seconds`."""
    parts = _ONE_PART.findall(text)
    return sum(float(figure) * _unit(word) for figure, word in parts)


def _unit(word: str) -> float:
    lower = word.lower()
    return _UNITS.get(lower) or _UNITS[lower.removesuffix("s")]


def _until(moment: datetime, *, now: datetime, zone: timezone | None) -> float | None:
    if moment.tzinfo is None:
        if zone is None:
            return None
        moment = moment.replace(tzinfo=zone)
    try:
        return (moment - now) / timedelta(seconds=1)
    except OverflowError:
        return None
