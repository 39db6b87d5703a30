"""OAuth logins at rest, encrypted; who may refresh one now; and what became of a refresh token."""

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from jobs.attempt import AttemptOutcome, Purpose
from jobs.credential import Credential, Readable
from jobs.store.instances import process_start
from jobs.store.tables import attempts, marks, tokens

TokenVerb = Callable[[Connection], None]
P = ParamSpec("P")
T = TypeVar("T")
_LOGIN = select(tokens).where(
    tokens.c.provider == bindparam("provider"), tokens.c.label == bindparam("label")
)


@dataclass(frozen=True, slots=True)
class SealedTokens:
    """A login's row. The token fields are ciphertext. `generation` counts its refreshes.

    `spent_by` is the attempt that sent this refresh token and has not been answered for. `grant_ends_at` is
    when the refresh token ends, None where nobody has said; `grant_warned_at` when that was warned of.
    """

    provider: str
    label: str
    login_id: str
    generation: int
    access_token: bytes
    refresh_token: bytes | None
    client_id: str | None
    account_id: str | None
    issued_at: datetime
    expires_at: datetime | None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    spent_by: int | None = None
    grant_ends_at: datetime | None = None
    grant_warned_at: datetime | None = None


def load(connection: Connection, provider: str, label: str) -> SealedTokens | None:
    """Return a login, or None when nobody has logged in."""
    row = connection.execute(_LOGIN, {"provider": provider, "label": label}).one_or_none()
    return SealedTokens(**row._mapping) if row else None


def is_another(sealed: SealedTokens, readable: Readable) -> bool:
    """Say whether a login is not the one that was read, or newer."""
    return sealed.generation != readable.generation or sealed.login_id != readable.fingerprint


def was_replaced(connection: Connection, readable: Readable) -> bool:
    """Say whether a newer token, or another login, has been stored since this one was read."""
    sealed = load(connection, readable.credential.provider, readable.credential.label)
    return sealed is not None and is_another(sealed, readable)


def labels(connection: Connection, provider: str) -> list[str]:
    """Return the labels of a provider's logins, sorted."""
    query = select(tokens.c.label).where(tokens.c.provider == provider).order_by(tokens.c.label)
    return list(connection.execute(query).scalars())


def every(connection: Connection) -> list[SealedTokens]:
    """Return all logins, those of providers that are configured no more included."""
    return [SealedTokens(**row._mapping) for row in connection.execute(select(tokens))]


def save_login(connection: Connection, sealed: SealedTokens) -> None:
    """Put a new login in place of whatever stood there."""
    forget(connection, sealed.provider, sealed.label)
    connection.execute(insert(tokens).values(_row(sealed)))


def forget(connection: Connection, provider: str, label: str) -> bool:
    """Delete a login; False when there was none. A refresh under way then finds nothing to replace."""
    deleted = connection.execute(delete(tokens).where(tokens.c.provider == provider, tokens.c.label == label))
    return deleted.rowcount == 1


def _row(sealed: SealedTokens) -> dict[str, object]:
    return {name: getattr(sealed, name) for name in SealedTokens.__slots__}


def new_owner() -> str:
    """Return a name for one refresher of this process, by which others can tell whether it still lives."""
    return f"{socket.gethostname()} {os.getpid()} {process_start(os.getpid())} {uuid.uuid4().hex}"


def _has_died(owner: str) -> bool:
    """Say whether the process behind a lease is surely gone: it ran on this host and is not there."""
    host, *rest = owner.split(" ")
    if len(rest) != 3 or host != socket.gethostname():
        return False
    pid, started, _ = rest
    return process_start(int(pid)) != started


def take_lease(
    connection: Connection, credential: Credential, *, owner: str, now: datetime, until: datetime
) -> SealedTokens | None:
    """Become the one refresher of a login and return the row as it is now; None while another one is.

    A lease whose time has passed, or whose process has died, is nobody's. What a dead refresher had sent will
    not be answered any more: its attempt becomes `unknown`.
    """
    found = load(connection, credential.provider, credential.label)
    if found is None or not _is_free(found, owner=owner, now=now):
        return None
    changed = connection.execute(
        update(tokens)
        .where(_of(credential), tokens.c.lease_owner.is_not_distinct_from(found.lease_owner))
        .values(lease_owner=owner, lease_until=until)
    )
    if changed.rowcount != 1:
        return None
    if found.spent_by is not None:
        connection.execute(
            update(attempts)
            .where(attempts.c.id == found.spent_by, attempts.c.outcome == AttemptOutcome.SENT)
            .values(outcome=AttemptOutcome.UNKNOWN)
        )
    return load(connection, credential.provider, credential.label)


def _is_free(sealed: SealedTokens, *, owner: str, now: datetime) -> bool:
    if sealed.lease_owner is None or sealed.lease_until is None:
        return True
    return sealed.lease_owner == owner or sealed.lease_until <= now or _has_died(sealed.lease_owner)


def release_lease(connection: Connection, credential: Credential, *, owner: str) -> None:
    """Let others refresh."""
    connection.execute(
        update(tokens)
        .where(_of(credential), tokens.c.lease_owner == owner)
        .values(lease_owner=None, lease_until=None)
    )


def spend(connection: Connection, sealed: SealedTokens, *, attempt_id: int) -> bool:
    """Note, before it leaves, that this refresh token is being sent; False when it was sent before."""
    changed = connection.execute(
        update(tokens).where(_still(sealed), tokens.c.spent_by.is_(None)).values(spent_by=attempt_id)
    )
    return changed.rowcount == 1


def unspend(connection: Connection, sealed: SealedTokens, *, attempt_id: int) -> None:
    """Note that the server surely did not take what an attempt sent: it was answered for, or never left."""
    connection.execute(
        update(tokens).where(_still(sealed), tokens.c.spent_by == attempt_id).values(spent_by=None)
    )


def replace(connection: Connection, old: SealedTokens, new: SealedTokens) -> bool:
    """Commit refreshed tokens in place of the old ones; False when somebody stored newer ones first."""
    changed = connection.execute(update(tokens).where(_still(old)).values(**_row(new)))
    return changed.rowcount == 1


def lift_refusals(connection: Connection, sealed: SealedTokens, *, since: datetime) -> int:
    """Lift the marks that refreshes have earned while a slow one, sent at `since`, was under way.

    It had been given up as lost; the token that it brings disproves that. Returns how many were lifted.
    """
    refreshes = select(attempts.c.id).where(
        attempts.c.provider == sealed.provider,
        attempts.c.credential == sealed.label,
        attempts.c.purpose == Purpose.REFRESH,
    )
    lifted = connection.execute(
        delete(marks).where(
            marks.c.provider == sealed.provider,
            marks.c.credential == sealed.label,
            marks.c.attempt_id.in_(refreshes),
            marks.c.made_at >= since,
        )
    )
    return lifted.rowcount


def leave_tokens(_connection: Connection) -> None:
    """Change nothing about a login; a refresh token that was sent stays spent."""


def together(
    connection: Connection,
    first: TokenVerb,
    verb: Callable[Concatenate[Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run two verbs as one: what they write stands, or falls, together. Returns what the second one does."""
    first(connection)
    return verb(connection, *args, **kwargs)


def note_warning(connection: Connection, sealed: SealedTokens, *, now: datetime) -> bool:
    """Note that the end of a login's grant is being warned of; False when that has been done already."""
    changed = connection.execute(
        update(tokens).where(_still(sealed), tokens.c.grant_warned_at.is_(None)).values(grant_warned_at=now)
    )
    return changed.rowcount == 1


def _still(sealed: SealedTokens) -> ColumnElement[bool]:
    return and_(
        tokens.c.provider == sealed.provider,
        tokens.c.label == sealed.label,
        tokens.c.login_id == sealed.login_id,
        tokens.c.generation == sealed.generation,
    )


def _of(credential: Credential) -> ColumnElement[bool]:
    return and_(tokens.c.provider == credential.provider, tokens.c.label == credential.label)
