"""When a login is due: for a refresh, before a run needs it, and for a warning, before its grant ends."""

import hashlib
from datetime import datetime, timedelta

from jobs.store.tokens import SealedTokens

_EARLY = timedelta(minutes=5)
_WARNED = timedelta(days=7)
_SHARE = 10
_SPREAD = 0.5


def early_by(sealed: SealedTokens) -> timedelta:
    """Return how long before its end an access token is refreshed: 5 min, or a tenth of a shorter life."""
    assert sealed.expires_at is not None
    return min(_EARLY, (sealed.expires_at - sealed.issued_at) / _SHARE)


def is_stale(sealed: SealedTokens, *, now: datetime) -> bool:
    """Say whether an access token is to be refreshed before it is used."""
    return sealed.expires_at is not None and now >= sealed.expires_at - early_by(sealed)


def due_at(sealed: SealedTokens) -> datetime | None:
    """Return when a login is refreshed outside of runs; None for one that cannot or need not be.

    That is before a run would have to do it: by up to half as long again, each login at a moment of its
    own. A refresh token that was sent and not answered for is never due.
    """
    if sealed.expires_at is None or sealed.refresh_token is None or sealed.spent_by is not None:
        return None
    return sealed.expires_at - early_by(sealed) * (1 + _SPREAD * _own_share(sealed))


def ends_at(sealed: SealedTokens) -> datetime | None:
    """Return when somebody has to log in again, None where nothing says so.

    A login that cannot be refreshed ends with its access token.
    """
    if sealed.refresh_token is None or sealed.spent_by is not None:
        return sealed.expires_at
    return sealed.grant_ends_at


def warns_at(sealed: SealedTokens) -> datetime | None:
    """Return from when on it is said that a login ends: 7 days before, or a tenth of a shorter life."""
    end = ends_at(sealed)
    return end and end - min(_WARNED, max((end - sealed.issued_at) / _SHARE, timedelta(0)))


def is_ending(sealed: SealedTokens, *, now: datetime) -> bool:
    """Say whether a login is about to end, and has not ended yet."""
    end, warns = ends_at(sealed), warns_at(sealed)
    return end is not None and warns is not None and warns <= now < end


def _own_share(sealed: SealedTokens) -> float:
    """Return a number in 0…1 that is always the same for one token, and another for the next."""
    digest = hashlib.sha256(f"{sealed.login_id} {sealed.generation}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
