"""How times, durations and marks are said to people, and read from them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from jobs import clock
from jobs.credential import CredentialKind
from jobs.errors import ErrorClass
from jobs.mark import DEFAULT_SOURCE, FOR_EVER, Mark
from jobs.providers.rows import duration

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_UNITS_SAID = 2
_SHORTEST = 10


def instant(moment: datetime | None) -> str | None:
    """Return a moment as JSON has it: UTC, ISO 8601, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def moment(when: datetime | None) -> str:
    """Return a moment for people, in UTC to the second."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if when else ""


def length(time: timedelta | float | None) -> str:
    """Return a duration in its two largest units: `21 min 46 s`."""
    if time is None:
        return ""
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if seconds < _SHORTEST:
        return f"{max(seconds, 0):.2f}".rstrip("0").rstrip(".") + " s"
    said: list[str] = []
    left = round(seconds)
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or said:
            said.append(f"{count} {unit}" if count else "")
        if len(said) == _UNITS_SAID:
            break
    return " ".join(part for part in said if part)


def delivery(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a delivery stands, and when it is tried next, for people.

    One that is being sent says until when nobody else sends it; that is past where its sender has died.
    """
    until = row["sending_until"]
    if until is not None and until > clock.utcnow():
        return "sending", f"sending until {moment(until)}"
    return row["state"], moment(row["next_attempt_at"])


def ago(when: datetime | None, *, now: datetime) -> str:
    """Say how long ago something was, or how far ahead it is."""
    if when is None:
        return ""
    return f"{length(now - when)} ago" if when <= now else f"in {length(when - now)}"


def source(of_time: str) -> str:
    """Say where a closing time comes from."""
    match of_time:
        case str() if of_time == DEFAULT_SOURCE:
            return "the default time"
        case "text":
            return "from the words of the answer"
        case name if "-" in name and "." not in name:
            return f"from the {name} header"
        case name:
            return f"from {name} in the answer"


def closing(mark: Mark, until: datetime | None, *, kind: str | None, now: datetime) -> str:
    """Say what a live mark closes for how long, or until what, and where the time comes from.

    `until` is when it opens as it is judged now, None or FOR_EVER where no time ends it; `kind` is that of
    the credential it stands on.
    """
    if until is None or until == FOR_EVER:
        lasting = f"{mark.status}: {mark.code or mark.error_class}, attempt {mark.attempt_id}"
        return f"{lasting}, until a {'login' if kind == CredentialKind.OAUTH else 'new key'} or a reset"
    said = source(mark.until_source)
    if mark.until is not None and until < mark.until:
        said += ", shortened since there is no other credential"
    cause_of_it = cause(mark.error_class, mark.code)
    return f"{cause_of_it}: closed for {length(until - now)}, {said}, attempt {mark.attempt_id}"


def cause(error_class: ErrorClass | str | None, code: str | None) -> str:
    """Return a class with the provider's code behind it."""
    return " ".join(part for part in (str(error_class or ""), code) if part)


class Since(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """A moment in the past: an ISO time, or how long ago. Without an offset it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        """Return the moment (aware), or the duration back from now."""
        if isinstance(value, datetime | timedelta):
            return value
        try:
            return duration(value)
        except ValueError:
            return _iso(self, str(value), "a duration such as 2h or 7d, or a time such as 2026-12-01T09:00")


class Moment(click.ParamType):  # type: ignore[type-arg] # the same
    """An ISO time. Without an offset it is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment, aware."""
        if isinstance(value, datetime):
            return value
        return _iso(self, str(value), "a time such as 2026-12-01T09:00:00Z")


def _iso(kind: Since | Moment, text: str, wanted: str) -> datetime:
    try:
        read = datetime.fromisoformat(text.strip())
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        kind.fail(f"{text!r} is not {wanted}")


def local(when: datetime, zone: ZoneInfo) -> str:
    """Return a moment in a zone, ISO 8601 with its offset."""
    return when.astimezone(zone).isoformat()
