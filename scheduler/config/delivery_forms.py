"""The small written forms of delivery: target names, addresses, header fields; each checked once.

A check raises ValueError with `what is wrong; what would be right`, and never quotes what it was given.
"""

import re
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from jobs.credential import SecretReference
from jobs.delivery.file_name import checked
from jobs.providers.rows import Duration
from scheduler.config.forms import JOB_NAME, LONGEST_NAME, Text

LONGEST_SENDING = timedelta(hours=1)
SHORTEST_PAUSE = timedelta(minutes=1)
REFERENCES = "env:NAME, file:PATH or systemd:NAME"
_APPRISE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*\S", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OURS = frozenset(
    {
        *("connection", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding"),
        *("webhook-id", "webhook-signature", "webhook-timestamp"),
    }
)
_NO_URL = f"is not a URL; write an absolute http:// or https:// URL, or a reference: {REFERENCES}"


def is_reference(text: str) -> bool:
    """Say whether a text says where a secret is kept, rather than being one."""
    try:
        SecretReference.parse(text)
    except ValueError:
        return False
    return True


def http_url(text: str) -> SplitResult:
    """Return the parts of an absolute http(s) URL without login and fragment; raises ValueError."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme.lower() in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(_NO_URL) from None
    if not sound or " " in text:
        raise ValueError(_NO_URL)
    _check_characters(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("carries a login; write an `Authorization` header whose value is a reference")
    if parts.fragment:
        raise ValueError("has a fragment, which is never sent; remove what begins with #")
    return parts


def public_part(url: str) -> str:
    """Return what of an address is no secret: scheme and host of an http(s) URL, of others the scheme."""
    scheme, _, _ = url.partition("://")
    try:
        parts = http_url(url)
    except ValueError:
        return f"{scheme}://"
    port = f":{parts.port}" if parts.port is not None else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}/"


def _check_characters(text: str) -> None:
    if not (text.isascii() and text.isprintable()):
        raise ValueError("holds characters that no URL can carry; write them percent-encoded, such as %C3%A4")


def _http_url(text: str) -> str:
    if not is_reference(text):
        http_url(text)
    return text


def _apprise_url(text: str) -> str:
    """Check the shape of an Apprise URL; whether Apprise knows its service is asked by `promptd check`."""
    if is_reference(text):
        return text
    if not _APPRISE.fullmatch(text):
        raise ValueError(f"is not an Apprise URL; write SERVICE://…, or a reference: {REFERENCES}")
    _check_characters(text)
    return text


def _target_name(name: str) -> str:
    if not re.fullmatch(JOB_NAME, name) or len(name) > LONGEST_NAME:
        raise ValueError(f"is not a delivery target's name; use a-z, 0-9 and hyphens, at most {LONGEST_NAME}")
    return name


def _header_name(name: str) -> str:
    """Check a name: a token (RFC 9110 section 5.6.2), and none that promptd writes itself."""
    if not _TOKEN.fullmatch(name):
        raise ValueError("is not the name of a header; use letters, digits and hyphens, such as X-Title")
    if name.lower() in _OURS:
        raise ValueError("is a header that promptd writes itself; remove it")
    return name


def _header_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError(
            "holds characters that no HTTP header can carry; write printable ASCII, without line breaks"
        )
    return value


def _secret(text: str) -> str:
    if not is_reference(text):
        raise ValueError(f"is not a reference to a secret; write {REFERENCES}, never the secret itself")
    return text


def _sending_time(length: timedelta) -> timedelta:
    if length > LONGEST_SENDING:
        raise ValueError("is too long: what waits for the same target waits as long; write 1h or less")
    return length


def _pause(length: timedelta) -> timedelta:
    if length < SHORTEST_PAUSE:
        raise ValueError("is too short: nobody reads reminders that come so often; write 1m or more")
    return length


def one_or_more_names(value: Any) -> Any:
    """Read a target that stands alone, by its name or as a mapping, as a list of one."""
    return [value] if isinstance(value, str | dict) else value


def named_target(value: Any) -> Any:
    """Read the name of a target as the mapping it stands for."""
    if isinstance(value, str):
        return {"to": value}
    if isinstance(value, dict):
        return value
    raise ValueError("is not a delivery target; write its name, or such as {to: NAME, on: failure}")


TargetName = Annotated[
    str,
    AfterValidator(_target_name),
    Field(json_schema_extra={"pattern": JOB_NAME, "maxLength": LONGEST_NAME}),
]
HttpAddress = Annotated[Text, AfterValidator(_http_url)]
AppriseAddress = Annotated[Text, AfterValidator(_apprise_url)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[Text, AfterValidator(_header_value)]
SendingTime = Annotated[Duration, AfterValidator(_sending_time)]
ReminderPause = Annotated[Duration, AfterValidator(_pause)]
FileName = Annotated[Text, AfterValidator(checked)]
SecretPlace = Annotated[Text, AfterValidator(_secret)]
