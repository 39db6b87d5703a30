"""Refusals as the store sees them: a request leaves, and what its failure earns is written."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from jobs.credential import Credential, Readable
from jobs.errors import ErrorClass
from jobs.mark import Mark, NewMark
from jobs.providers.pool import closure
from jobs.providers.recovery import RECOVERY
from jobs.store import credentials
from support.ledger import NOW, SECOND, key_of, send, target_of


def earned(error_class: ErrorClass, *, until: datetime | None = None) -> NewMark:
    """Return what a failure of this class earns by the table; `until` is a time that the provider stated."""
    row = RECOVERY[error_class]
    assert row.scope is not None
    mark = NewMark(row.scope, error_class, row.ladder, lasts_from_step=row.lasts_from_step)
    return replace(mark, stated=until, source="retry-after") if until else mark


def refuse(
    db: Connection,
    error_class: ErrorClass,
    *,
    started: datetime = NOW,
    answered: datetime | None = None,
    until: datetime | None = None,
    credential: Credential | None = None,
    fingerprint: str = "f1",
) -> Mark | None:
    """Send a request and have it refused a second later."""
    attempt = send(db, credential, at=started, fingerprint=fingerprint)
    return credentials.mark(db, attempt, earned(error_class, until=until), now=answered or started + SECOND)


def is_open(db: Connection, at: datetime, *, fingerprint: str = "f1", only: bool = False) -> bool:
    """Say whether the usual credential may be used for the usual target."""
    readable = Readable(key_of(), None, (fingerprint,))
    found = credentials.marks_of(db, "zai")
    return closure(readable, found, target_of(), only_credential=only, now=at) is None
