"""What a token endpoint grants (RFC 6749 section 5.1): the tokens, and until when each of them is good."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.errors import PromptdError
from jobs.providers.answer import Answer
from jobs.secret import Redactor, Secret, Token

_OK = 200
_LONGEST = timedelta(days=3650).total_seconds()
# In seconds from now: GitHub (docs.github.com, "Refreshing user access tokens"), then Keycloak, whose 0 for
# an offline token means that it does not end (keycloak.org, "Offline access").
_GRANT_LIFETIMES = ("refresh_token_expires_in", "refresh_expires_in")
_LONGEST_SAID, _LONGEST_READ = 200, 2_000


class LoginFailed(PromptdError):
    """A person's login was not granted; the text says why."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Tokens as they were granted at `issued_at`.

    `refresh` None: the refresh token used before stays. `expires_at` None: nothing says when the access token
    ends. `ends_at` is when the refresh token does, None where the endpoint does not say.
    """

    access: Secret
    refresh: Secret | None
    issued_at: datetime
    expires_at: datetime | None
    ends_at: datetime | None

    @property
    def secrets(self) -> list[Secret]:
        """Every secret in it, for the redactor."""
        return [self.access, *([self.refresh] if self.refresh else [])]


def granted(answer: Answer, *, now: datetime) -> Grant | None:
    """Return what a token endpoint's answer grants, None when it grants nothing."""
    document: Mapping[str, Any] = document_of(answer) if answer.status == _OK else {}
    access, refresh = document.get("access_token"), document.get("refresh_token")
    if not carriable(access):
        return None
    lifetime = next((document[name] for name in _GRANT_LIFETIMES if name in document), None)
    secret = Token(str(access))
    return Grant(
        secret,
        Token(str(refresh)) if carriable(refresh) else None,
        now,
        _after(document.get("expires_in"), now) or expiry_of(secret),
        _after(lifetime, now),
    )


def document_of(answer: Answer) -> Mapping[str, Any]:
    """Return the JSON object of an answer, {} when it is anything else."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def refusal_of(answer: Answer, redactor: Redactor) -> str:
    """Return what an answer without a grant says (RFC 6749 section 5.2), fit to be printed."""
    document = document_of(answer)
    error, description = document.get("error"), document.get("error_description")
    match error:
        case {"code": code, "message": message}:  # OpenAI's shape
            error, description = code, message
    status = (answer.detail or "no answer") if answer.status is None else f"HTTP {answer.status}"
    said = ": ".join(part for part in (error, description) if isinstance(part, str) and part)
    clean = redactor.clean("".join(each if each.isprintable() else " " for each in said[:_LONGEST_READ]))
    return f"{status}, {clean[:_LONGEST_SAID]}" if clean else status


def expiry_of(token: Secret) -> datetime | None:
    """Return the `exp` of a JSON web token (RFC 7519), unverified; None for an opaque token."""
    return _moment(claims_of(token).get("exp"))


def issue_of(token: Secret) -> datetime | None:
    """Return the `iat` of a JSON web token (RFC 7519), unverified; None where it has none."""
    return _moment(claims_of(token).get("iat"))


def carriable(value: object) -> bool:
    """Say whether a token, or an account's id, can be sent: a header carries it as it is."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()


def claims_of(token: Secret) -> Mapping[str, Any]:
    """Return the claims of a JSON web token, unverified: for the client id and account that it names."""
    parts = token.reveal().split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def seconds_of(value: object) -> float | None:
    """Return a number of seconds that means something; servers write it as a text, too."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < _LONGEST else None  # type: ignore[operator,arg-type]


def _after(lifetime: object, now: datetime) -> datetime | None:
    seconds = seconds_of(lifetime)
    return now + timedelta(seconds=seconds) if seconds else None


def _moment(value: object) -> datetime | None:
    if isinstance(value, int | float) and 0 < value < datetime.max.replace(tzinfo=UTC).timestamp():
        return datetime.fromtimestamp(value, UTC)
    return None
