"""Refreshing a login (RFC 6749 section 6): one refresher at a time, no token sent twice blindly."""

import asyncio
import base64
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from jobs import clock
from jobs.attempt import Attempt, Purpose, Wait
from jobs.credential import Readable
from jobs.errors import ErrorClass
from jobs.providers.answer import Answer
from jobs.providers.client import Client
from jobs.providers.secrets import Keyring
from jobs.request import ApiMode
from jobs.secret import Redactor, Secret
from jobs.store import attempts as attempt_verbs
from jobs.store import credentials, tokens
from jobs.store.attempts import Place
from jobs.store.store import Store
from jobs.store.tokens import SealedTokens
from jobs.target import Target

REQUEST_TIMEOUT = timedelta(seconds=30)
_LEASE = timedelta(seconds=60)
_LEASE_POLL = 0.1
_OK = 200
_MULTIPLE_CHOICES = 300
_OF_A_REFRESH = (ErrorClass.AUTH_DEAD, ErrorClass.AUTH_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Adopted:
    """Somebody else had brought a newer token, or been refused: nothing was sent; look again."""


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """Nothing was sent, because nothing may be: `answer_lost`, or the login is being refreshed elsewhere."""

    error_class: ErrorClass
    message: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The token endpoint gave new tokens; they are committed."""

    attempt: Attempt
    answer: Answer
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The token endpoint was asked and gave none; its attempt is still to be settled."""

    attempt: Attempt
    answer: Answer
    seconds: float


Refresh = Adopted | Unanswerable | Refreshed | Refused
T = TypeVar("T")


class Refresher:
    """Refreshes logins. Its attempts are opened here and settled by the chain, like every other."""

    def __init__(self, *, store: Store, client: Client, keyring: Keyring, redactor: Redactor) -> None:
        self._store, self._client, self._keyring, self._redactor = store, client, keyring, redactor
        self._under_way: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait for refreshes under way: each is bounded, and its new token must not be lost."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def refresh(
        self,
        readable: Readable,
        place: Place,
        target: Target,
        *,
        left: timedelta,
        settle: Callable[[Refresh], Awaitable[T]],
    ) -> T:
        """Bring a login to a newer generation than `readable`'s; return what `settle` makes of it.

        Waits for another refresher, at most `left`; inside the lease the row is read again, and a newer
        token that somebody stored is adopted without a request. `settle` writes down what came of it
        before the lease is let go, so that whoever waits finds the new token, or the mark. A run that is
        cancelled meanwhile does not take the refresh with it: an answer on its way would be lost with a
        token that is spent.
        """
        task = asyncio.create_task(self._refresh(readable, place, target, left, settle))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def was_replaced(self, readable: Readable) -> bool:
        """Say whether a newer token, or another login, has been stored since this one was read."""
        credential = readable.credential
        sealed = await self._store.read(tokens.load, credential.provider, credential.label)
        return sealed is not None and _is_another(sealed, readable)

    async def _refresh(
        self,
        readable: Readable,
        place: Place,
        target: Target,
        left: timedelta,
        settle: Callable[[Refresh], Awaitable[T]],
    ) -> T:
        owner = uuid.uuid4().hex
        sealed = await self._lease(readable, owner, left)
        if not isinstance(sealed, SealedTokens):
            return await settle(sealed)
        try:
            return await settle(await self._ask(readable, sealed, place, target))
        finally:
            await self._store.write(tokens.release_lease, readable.credential, owner=owner)

    async def _lease(
        self, readable: Readable, owner: str, left: timedelta
    ) -> SealedTokens | Adopted | Unanswerable:
        give_up = clock.monotonic() + min(left, _LEASE).total_seconds()
        while True:
            taken = await self._store.write(_take_lease, readable, owner=owner, now=clock.utcnow())
            if taken is not None:
                return taken
            if clock.monotonic() >= give_up:
                refreshed_elsewhere = "another process is refreshing this login and has not finished"
                return Unanswerable(ErrorClass.AUTH_UNAVAILABLE, refreshed_elsewhere)
            await asyncio.sleep(_LEASE_POLL)

    async def _ask(self, readable: Readable, sealed: SealedTokens, place: Place, target: Target) -> Refresh:
        oauth = readable.credential.oauth
        client_id = (oauth and oauth.client_id) or sealed.client_id
        if oauth is None or sealed.refresh_token is None or client_id is None:
            return Unanswerable(
                ErrorClass.AUTH_DEAD,
                "this login cannot be refreshed: it has no refresh token or client id; log in again",
            )
        if sealed.spent_by is not None:
            return Unanswerable(
                ErrorClass.AUTH_DEAD,
                f"the answer to the refresh of attempt {sealed.spent_by} was lost: its token may be spent; "
                "log in again",
            )
        attempt = await self._store.write(
            _open, readable, sealed, place, target, oauth.token_url, now=clock.utcnow()
        )
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._keyring.unseal(sealed.refresh_token).reveal(),
            "client_id": client_id,
        }
        self._redactor.learn([Secret(form["refresh_token"])])
        started = clock.monotonic()
        answer = await self._client.post_form(oauth.token_url, form, timeout=REQUEST_TIMEOUT)
        seconds = clock.monotonic() - started
        granted = _granted(answer)
        if granted is None:
            if not answer.left or (answer.status is not None and answer.status >= _MULTIPLE_CHOICES):
                await self._store.write(tokens.unspend, sealed)
            return Refused(attempt, answer, seconds)
        await self._store.write(tokens.replace, sealed, self._resealed(sealed, granted, clock.utcnow()))
        return Refreshed(attempt, answer, seconds)

    def _resealed(self, sealed: SealedTokens, granted: Mapping[str, Any], now: datetime) -> SealedTokens:
        access = Secret(granted["access_token"])
        refresh = granted.get("refresh_token")
        secrets = [access, *([Secret(refresh)] if isinstance(refresh, str) and refresh else [])]
        self._redactor.learn(secrets)
        return replace(
            sealed,
            generation=sealed.generation + 1,
            access_token=self._keyring.seal(access),
            refresh_token=self._keyring.seal(secrets[1]) if len(secrets) > 1 else sealed.refresh_token,
            issued_at=now,
            expires_at=_expiry(granted, now),
            spent_by=None,
        )


def _is_another(sealed: SealedTokens, readable: Readable) -> bool:
    return sealed.generation != readable.generation or sealed.login_id != readable.fingerprint


def _take_lease(
    connection: Connection, readable: Readable, *, owner: str, now: datetime
) -> SealedTokens | Adopted | None:
    """Become the one refresher, unless there is nothing left to refresh; None while another one is."""
    credential = readable.credential
    sealed = tokens.load(connection, credential.provider, credential.label)
    if sealed is not None and _is_another(sealed, readable):
        return Adopted()
    if _was_refused(connection, readable, now=now):
        return Adopted()
    return tokens.take_lease(connection, credential, owner=owner, now=now, until=now + _LEASE)


def _was_refused(connection: Connection, readable: Readable, *, now: datetime) -> bool:
    """Say whether a refresh of this login has just failed: there is no point in asking again."""
    return any(
        mark.credential == readable.credential.label
        and mark.error_class in _OF_A_REFRESH
        and mark.closed_until(now, fingerprints=readable.fingerprints, only_credential=False)
        for mark in credentials.marks_of(connection, readable.credential.provider)
    )


def _open(
    connection: Connection,
    readable: Readable,
    sealed: SealedTokens,
    place: Place,
    target: Target,
    token_url: str,
    *,
    now: datetime,
) -> Attempt:
    """Commit the attempt and that its refresh token is spent, before either leaves."""
    place = replace(place, purpose=Purpose.REFRESH)
    attempt_id = attempt_verbs.insert_sent(
        connection, place, target, readable.credential, base_url=token_url, wait=Wait(), now=now
    )
    tokens.spend(connection, sealed, attempt_id=attempt_id)
    return Attempt(
        id=attempt_id,
        target=target,
        target_index=place.target_index,
        credential=readable.credential,
        purpose=Purpose.REFRESH,
        base_url=token_url,
        api_mode=ApiMode.CHAT_COMPLETIONS,
        started_at=now,
        secret=None,
        fingerprint=readable.fingerprint,
    )


def _granted(answer: Answer) -> Mapping[str, Any] | None:
    if answer.status != _OK:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    token = document.get("access_token") if isinstance(document, dict) else None
    carriable = isinstance(token, str) and token.isascii() and token.isprintable()
    return document if carriable and token else None


def _expiry(granted: Mapping[str, Any], now: datetime) -> datetime | None:
    lifetime = granted.get("expires_in")
    if isinstance(lifetime, int | float) and 0 < lifetime < timedelta(days=3650).total_seconds():
        return now + timedelta(seconds=lifetime)
    return expiry_of(Secret(granted["access_token"]))


def expiry_of(token: Secret) -> datetime | None:
    """Return the `exp` of a JSON web token (RFC 7519), unverified; None for an opaque token."""
    claims = claims_of(token)
    moment = claims.get("exp")
    if isinstance(moment, int | float) and 0 < moment < datetime.max.replace(tzinfo=UTC).timestamp():
        return datetime.fromtimestamp(moment, UTC)
    return None


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
