"""Refreshing a login (RFC 6749 section 6): one refresher at a time, no token sent twice blindly."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from jobs import clock
from jobs.attempt import Attempt, Purpose, Wait
from jobs.credential import Readable
from jobs.errors import ErrorClass
from jobs.providers.answer import Answer
from jobs.providers.client import Client
from jobs.providers.secrets import Keyring
from jobs.providers.token_grant import Grant, granted
from jobs.providers.vault import way_in
from jobs.request import ApiMode
from jobs.secret import Redactor
from jobs.store import attempts as attempt_verbs
from jobs.store import credentials, holds, tokens
from jobs.store.attempts import Place
from jobs.store.store import Store
from jobs.store.tokens import SealedTokens, TokenVerb, leave_tokens
from jobs.target import Target

REQUEST_TIMEOUT = timedelta(seconds=30)
_LEASE = timedelta(seconds=60)
_LEASE_POLL = 0.1
_CLOSE_TIMEOUT = REQUEST_TIMEOUT + timedelta(seconds=15)
_MULTIPLE_CHOICES = 300
_ANSWER_LOST_UPSTREAM = (504, 524)  # a gateway has waited for it in vain (RFC 9110, 15.6.5; Cloudflare's own)
OF_A_REFRESH = (ErrorClass.AUTH_DEAD, ErrorClass.AUTH_UNAVAILABLE)


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
    """The token endpoint gave new tokens.

    `store_tokens` commits them, and has to run in the transaction that settles the attempt: see `together`.
    """

    attempt: Attempt
    answer: Answer
    seconds: float
    store_tokens: TokenVerb = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The token endpoint was asked and gave none.

    `store_tokens` commits what that means for the refresh token, in the transaction that settles the attempt.
    """

    attempt: Attempt
    answer: Answer
    seconds: float
    store_tokens: TokenVerb = field(repr=False)


Refresh = Adopted | Unanswerable | Refreshed | Refused
T = TypeVar("T")


class Refresher:
    """Refreshes logins. Its attempts are opened here and settled by the chain, like every other."""

    def __init__(self, *, store: Store, client: Client, keyring: Keyring, redactor: Redactor) -> None:
        self._store, self._client, self._keyring, self._redactor = store, client, keyring, redactor
        self._under_way: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait for refreshes under way: each is bounded, and its new token must not be lost.

        Only a database that takes no write keeps one beyond that; it is given up.
        """
        if self._under_way:
            _, left = await asyncio.wait(self._under_way, timeout=_CLOSE_TIMEOUT.total_seconds())
            for task in left:
                task.cancel()

    async def refresh(
        self,
        readable: Readable,
        place: Place,
        target: Target,
        *,
        patience: timedelta,
        opened: Callable[[Attempt], None],
        settle: Callable[[Refresh], Awaitable[T]],
    ) -> T:
        """Bring a login to a newer generation than `readable`'s; return what `settle` makes of it.

        Waits for another refresher, no longer than `patience`; inside the lease the row is read again, and a
        newer token that somebody stored is adopted without a request. `settle` writes down what came of it
        before the lease is let go, so that whoever waits finds the new token, or the mark. A run that is
        cancelled meanwhile does not take the refresh with it: an answer on its way would be lost with a
        token that is spent. `opened` is told of an attempt before it leaves.
        """
        task = asyncio.create_task(self._refresh(readable, place, target, patience, opened, settle))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def was_replaced(self, readable: Readable) -> bool:
        """Say whether a newer token, or another login, has been stored since this one was read."""
        return await self._store.insist_on_reading(tokens.was_replaced, readable)

    async def _refresh(
        self,
        readable: Readable,
        place: Place,
        target: Target,
        patience: timedelta,
        opened: Callable[[Attempt], None],
        settle: Callable[[Refresh], Awaitable[T]],
    ) -> T:
        owner = tokens.new_owner()
        sealed = await self._lease(readable, owner, patience)
        if not isinstance(sealed, SealedTokens):
            return await settle(sealed)
        try:
            return await settle(await self._ask(readable, sealed, place, target, opened))
        finally:
            await self._store.insist(tokens.release_lease, readable.credential, owner=owner)

    async def _lease(
        self, readable: Readable, owner: str, patience: timedelta
    ) -> SealedTokens | Adopted | Unanswerable:
        give_up = clock.monotonic() + min(patience, _LEASE).total_seconds()
        while True:
            taken = await self._store.write(_take_lease, readable, owner=owner, now=clock.utcnow())
            if taken is not None:
                return taken
            if clock.monotonic() >= give_up:
                refreshed_elsewhere = "another process is refreshing this login and has not finished"
                return Unanswerable(ErrorClass.AUTH_UNAVAILABLE, refreshed_elsewhere)
            await asyncio.sleep(_LEASE_POLL)

    async def _ask(
        self,
        readable: Readable,
        sealed: SealedTokens,
        place: Place,
        target: Target,
        opened: Callable[[Attempt], None],
    ) -> Refresh:
        asked = refresh_request(readable, sealed)
        if isinstance(asked, Unanswerable):
            return asked
        token_url, client_id, refresh_token = asked
        secret = self._keyring.unseal(refresh_token)
        self._redactor.learn([secret])
        attempt = await self._store.insist(
            _open, readable, sealed, place, target, token_url, now=clock.utcnow()
        )
        if attempt is None:
            return Adopted()
        opened(attempt)
        form = {"grant_type": "refresh_token", "refresh_token": secret.reveal(), "client_id": client_id}
        started = clock.monotonic()
        answer = await self._client.post_form(token_url, form, timeout=REQUEST_TIMEOUT)
        seconds = clock.monotonic() - started
        grant = granted(answer, now=clock.utcnow())
        if grant is not None:
            new = self._resealed(sealed, grant)
            return Refreshed(attempt, answer, seconds, partial(_store, sealed, new, attempt))
        unspend = partial(tokens.unspend, sealed=sealed, attempt_id=attempt.id)
        return Refused(attempt, answer, seconds, leave_tokens if _may_be_taken(answer) else unspend)

    def _resealed(self, sealed: SealedTokens, grant: Grant) -> SealedTokens:
        """Return the login's row after a refresh. A grant whose end is not told again keeps the one told."""
        self._redactor.learn(grant.secrets)
        ends_at = grant.ends_at or sealed.grant_ends_at
        return replace(
            sealed,
            generation=sealed.generation + 1,
            access_token=self._keyring.seal(grant.access),
            refresh_token=self._keyring.seal(grant.refresh) if grant.refresh else sealed.refresh_token,
            issued_at=grant.issued_at,
            expires_at=grant.expires_at,
            spent_by=None,
            lease_owner=None,
            lease_until=None,
            grant_ends_at=ends_at,
            grant_warned_at=sealed.grant_warned_at if ends_at == sealed.grant_ends_at else None,
        )


def refresh_request(readable: Readable, sealed: SealedTokens) -> tuple[str, str, bytes] | Unanswerable:
    """Return token URL, client id and sealed refresh token, or why nothing may be sent."""
    oauth = readable.credential.oauth
    client_id = (oauth and oauth.client_id) or sealed.client_id
    again = f"log in again with {way_in(readable.credential)}"
    if oauth is None or sealed.refresh_token is None or client_id is None:
        lacking = f"this login cannot be refreshed: it has no refresh token or client id; {again}"
        return Unanswerable(ErrorClass.AUTH_DEAD, lacking)
    if sealed.spent_by is not None:
        lost = f"the answer to the refresh of attempt {sealed.spent_by} was lost: its token may be spent"
        return Unanswerable(ErrorClass.AUTH_DEAD, f"{lost}; {again}")
    return oauth.token_url, client_id, sealed.refresh_token


def _store(old: SealedTokens, new: SealedTokens, attempt: Attempt, connection: Connection) -> None:
    """Put new tokens in the place of the old ones, unless a newer login stands there; let go whom it held."""
    since = attempt.started_at
    if tokens.replace(connection, old, new) and tokens.lift_refusals(connection, new, since=since):
        holds.open_up(connection, [(new.provider, new.label)], now=since)


def _may_be_taken(answer: Answer) -> bool:
    """Say whether the endpoint may have exchanged the token, although nobody heard of a new one."""
    if answer.status is None:
        return answer.left
    return answer.status < _MULTIPLE_CHOICES or answer.status in _ANSWER_LOST_UPSTREAM


def _state(sealed: SealedTokens) -> tuple[object, ...]:
    """Return what must not have changed between taking the lease and sending."""
    return sealed.login_id, sealed.generation, sealed.lease_owner, sealed.spent_by


def _take_lease(
    connection: Connection, readable: Readable, *, owner: str, now: datetime
) -> SealedTokens | Adopted | None:
    """Become the one refresher, unless there is nothing left to refresh; None while another one is."""
    credential = readable.credential
    sealed = tokens.load(connection, credential.provider, credential.label)
    if sealed is None or tokens.is_another(sealed, readable):
        return Adopted()
    if _was_refused(connection, readable, now=now):
        return Adopted()
    return tokens.take_lease(connection, credential, owner=owner, now=now, until=now + _LEASE)


def _was_refused(connection: Connection, readable: Readable, *, now: datetime) -> bool:
    """Say whether a refresh of this login has just failed: there is no point in asking again."""
    return any(
        mark.credential == readable.credential.label
        and mark.error_class in OF_A_REFRESH
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
) -> Attempt | None:
    """Commit the attempt and that its refresh token is spent, before either leaves.

    None, and nothing written, when the lease was lost or another login stored since it was taken.
    """
    stands = tokens.load(connection, sealed.provider, sealed.label)
    if stands is None or _state(stands) != _state(sealed):
        return None
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
