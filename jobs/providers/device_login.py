"""Logging in on another device (RFC 8628): get a code, let a person approve it, wait for the tokens."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from authlib.oauth2.rfc6749 import AccessDeniedError, list_to_scope
from authlib.oauth2.rfc8628 import (
    DEVICE_CODE_GRANT_TYPE,
    AuthorizationPendingError,
    ExpiredTokenError,
    SlowDownError,
)

from jobs import clock
from jobs.credential import OAuthClient
from jobs.providers.answer import Answer
from jobs.providers.client import Client
from jobs.providers.token_grant import Grant, LoginFailed, document_of, granted, refusal_of, seconds_of
from jobs.secret import Redactor, Secret

REQUEST_TIMEOUT = timedelta(seconds=30)
DEFAULT_INTERVAL = 5.0  # seconds, where the server names none (RFC 8628, 3.2)
SLOWER_BY = 5.0  # seconds more after each `slow_down` (RFC 8628, 3.5)
LONGEST_BACKOFF = 60.0
_LONGEST_WAIT = 3600.0
_BUSY = (408, 429)
_LONGEST_CODE, _LONGEST_PAGE = 64, 2_000  # characters that a person is shown, at most
_LONGEST_DEVICE_CODE = 16_000
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person is shown, and what is polled with; `expires_in` and `interval` in seconds."""

    device_code: Secret = field(repr=False)
    user_code: str
    verification_uri: str
    complete_uri: str | None
    expires_in: float
    interval: float


class DeviceLogin:
    """One login of one client. Sends only what the two steps need, through the bounded client."""

    def __init__(self, client: Client, oauth: OAuthClient, redactor: Redactor) -> None:
        if oauth.client_id is None or oauth.device_authorization_url is None:
            raise ValueError("a device login needs a client id and a device authorization URL")
        self._client, self._oauth, self._redactor = client, oauth, redactor
        self._client_id, self._begin_url = oauth.client_id, oauth.device_authorization_url

    async def begin(self) -> DeviceCode:
        """Ask for a code (RFC 8628 section 3.1); raises LoginFailed."""
        form = {"client_id": self._client_id}
        if self._oauth.scopes:
            form["scope"] = list_to_scope(self._oauth.scopes)
        answer = await self._client.post_form(self._begin_url, form, timeout=REQUEST_TIMEOUT)
        code = _code_of(document_of(answer)) if answer.status == 200 else None
        if code is None:
            said = refusal_of(answer, self._redactor)
            raise LoginFailed(f"no login could be begun at {self._begin_url}: {said}")
        self._redactor.learn([code.device_code])
        return code

    async def wait(self, code: DeviceCode) -> Grant:
        """Poll until the person has decided, at most as long as the code is good; raises LoginFailed."""
        form = {
            "grant_type": DEVICE_CODE_GRANT_TYPE,
            "device_code": code.device_code.reveal(),
            "client_id": self._client_id,
        }
        interval, give_up = code.interval, clock.monotonic() + code.expires_in
        while (left := give_up - clock.monotonic()) > 0:
            await asyncio.sleep(min(interval, left))
            answer = await self._client.post_form(self._oauth.token_url, form, timeout=REQUEST_TIMEOUT)
            grant = granted(answer, now=clock.utcnow())
            if grant is not None:
                self._redactor.learn(grant.secrets)
                return grant
            interval = next_interval(answer, interval, self._redactor)
        raise LoginFailed("the code was not approved in time; log in again for a new one")


def next_interval(answer: Answer, interval: float, redactor: Redactor) -> float:
    """Return how long to wait before the next poll, in seconds (RFC 8628 section 3.5).

    Where no answer came, or one that judges nothing, the interval doubles. A server may name a longer one
    with `slow_down`, as GitHub does. Raises LoginFailed where polling is over.
    """
    document = document_of(answer)
    match document.get("error"):
        case AuthorizationPendingError.error:
            return interval
        case SlowDownError.error:
            return max(interval + SLOWER_BY, seconds_of(document.get("interval")) or 0)
        case AccessDeniedError.error:
            raise LoginFailed("the login was denied; nothing was stored")
        case ExpiredTokenError.error:
            raise LoginFailed("the code was not approved in time; log in again for a new one")
    if answer.status is None or answer.status in _BUSY or answer.status >= _FIRST_SERVER_ERROR:
        return max(interval, min(2 * interval, LONGEST_BACKOFF))
    raise LoginFailed(f"the login was not granted: {refusal_of(answer, redactor)}")


def _code_of(document: Any) -> DeviceCode | None:
    """Read section 3.2's answer; `verification_url` is what Google calls it (developers.google.com).

    None for one that nobody could use: a code or a page that is too long to be typed is refused.
    """
    device_code, user_code = document.get("device_code"), document.get("user_code")
    uri = document.get("verification_uri", document.get("verification_url"))
    complete = document.get("verification_uri_complete")
    codes = _sayable(device_code, _LONGEST_DEVICE_CODE) and _sayable(user_code, _LONGEST_CODE)
    if not (codes and _is_page(uri)):
        return None
    return DeviceCode(
        Secret(device_code),
        user_code,
        uri,
        complete if _is_page(complete) else None,
        min(seconds_of(document.get("expires_in")) or _LONGEST_WAIT, _LONGEST_WAIT),
        seconds_of(document.get("interval")) or DEFAULT_INTERVAL,
    )


def _sayable(text: object, longest: int) -> bool:
    """Say whether a text can be printed as it is: a terminal obeys what cannot."""
    return isinstance(text, str) and 0 < len(text) <= longest and text.isprintable()


def _is_page(uri: object) -> bool:
    return _sayable(uri, _LONGEST_PAGE) and str(uri).startswith(("https://", "http://"))
