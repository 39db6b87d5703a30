"""OAuth logins at rest, encrypted; who may refresh one now; and what became of a refresh token."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, delete, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from jobs.credential import Credential
from jobs.store.tables import tokens


@dataclass(frozen=True, slots=True)
class SealedTokens:
    """A login's row. The token fields are ciphertext. `generation` counts its refreshes.

    `spent_by` is the attempt that sent this refresh token and has not been answered for.
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


def load(connection: Connection, provider: str, label: str) -> SealedTokens | None:
    """Return a login, or None when nobody has logged in."""
    row = connection.execute(
        select(tokens).where(tokens.c.provider == provider, tokens.c.label == label)
    ).one_or_none()
    return SealedTokens(**row._mapping) if row else None


def save_login(connection: Connection, sealed: SealedTokens) -> None:
    """Put a new login in place of whatever stood there."""
    connection.execute(
        delete(tokens).where(tokens.c.provider == sealed.provider, tokens.c.label == sealed.label)
    )
    connection.execute(insert(tokens).values(_row(sealed)))


def _row(sealed: SealedTokens) -> dict[str, object]:
    return {name: getattr(sealed, name) for name in SealedTokens.__slots__}


def take_lease(
    connection: Connection, credential: Credential, *, owner: str, now: datetime, until: datetime
) -> SealedTokens | None:
    """Become the one refresher of a login and return the row as it is now; None while another one is."""
    changed = connection.execute(
        update(tokens)
        .where(
            _of(credential),
            or_(tokens.c.lease_until.is_(None), tokens.c.lease_until <= now, tokens.c.lease_owner == owner),
        )
        .values(lease_owner=owner, lease_until=until)
    )
    return load(connection, credential.provider, credential.label) if changed.rowcount == 1 else None


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


def unspend(connection: Connection, sealed: SealedTokens) -> None:
    """Note that the server surely did not take the refresh token: it was answered for, or never left."""
    connection.execute(update(tokens).where(_still(sealed)).values(spent_by=None))


def replace(connection: Connection, old: SealedTokens, new: SealedTokens) -> bool:
    """Commit refreshed tokens in place of the old ones; False when somebody stored newer ones first."""
    changed = connection.execute(update(tokens).where(_still(old)).values(**_row(new)))
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
