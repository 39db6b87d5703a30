"""Credentials and marks: who is closed until when, and the one door through which a mark comes in."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Row,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from jobs.attempt import Attempt, Purpose
from jobs.credential import Credential
from jobs.errors import AttributionRefused, ErrorClass
from jobs.mark import Mark, NewMark, Scope, subject, used_by
from jobs.store import holds
from jobs.store.jobs import insert_or_ignore
from jobs.store.tables import credentials, marks

_MARK_COLUMNS = tuple(marks.c[field.name] for field in fields(Mark))
_LASTING = (ErrorClass.AUTH_DEAD,)
_NAMES = ("provider", "credential", "quota_group", "base_url", "model")

# Statements of every request are built once: to build one takes several times as long as to run it.
_CREDENTIAL = select(credentials).where(
    credentials.c.provider == bindparam("provider"), credentials.c.label == bindparam("label")
)
_MARKS_OF = select(*_MARK_COLUMNS).where(marks.c.provider == bindparam("provider"))
_STANDING = select(*_MARK_COLUMNS).where(
    marks.c.scope == bindparam("scope"),
    marks.c.error_class == bindparam("error_class"),
    *(marks.c[name].is_not_distinct_from(bindparam(name)) for name in _NAMES),
)
_RESET_AT = select(func.max(credentials.c.reset_at)).where(
    credentials.c.provider == bindparam("provider"),
    credentials.c.label == func.coalesce(bindparam("credential", type_=Text), credentials.c.label),
    credentials.c.quota_group
    == func.coalesce(bindparam("quota_group", type_=Text), credentials.c.quota_group),
)


def _disproved(scopes: Iterable[Scope], what: ColumnElement[bool]) -> Delete:
    """Return what lifts the marks of these scopes on what an attempt used, if they are older than it."""
    of_the_attempt = (
        and_(marks.c.scope == scope, *(marks.c[name] == bindparam(name) for name in scope.columns))
        for scope in scopes
    )
    return delete(marks).where(
        marks.c.provider == bindparam("provider"),
        or_(*of_the_attempt),
        what,
        marks.c.made_at < bindparam("started_at"),
    )


_DISPROVED = _disproved(Scope, marks.c.error_class.not_in(_LASTING))
_DISPROVED_BY_REFRESH = _disproved((Scope.CREDENTIAL,), marks.c.error_class == ErrorClass.AUTH_UNAVAILABLE)


def ensure(
    connection: Connection, credential: Credential, fingerprints: tuple[str, ...], *, now: datetime
) -> None:
    """Keep the credential's row: its kind, source, group and the fingerprint of today's secret.

    `fingerprints` is the secret's under the current key first, then under keys being rotated out: when
    the stored one is among those it is written anew, with its marks, and nothing is forgiven. An empty
    tuple, a secret that cannot be read, changes no fingerprint.
    """
    key = {"provider": credential.provider, "label": credential.label}
    said = {"kind": credential.kind, "source": credential.source, "quota_group": credential.quota_group}
    row = connection.execute(_CREDENTIAL, key).mappings().one_or_none()
    current = fingerprints[0] if fingerprints else None
    if row is None:
        values = {**key, **said, "fingerprint": current, "created_at": now}
        connection.execute(insert_or_ignore(connection.dialect.name, credentials).values(values))
        return
    if row["fingerprint"] in fingerprints[1:]:
        connection.execute(
            update(marks)
            .where(_is(marks, credential, "credential"), marks.c.fingerprint == row["fingerprint"])
            .values(fingerprint=current)
        )
    changed = {name: value for name, value in said.items() if row[name] != value}
    if current is not None and row["fingerprint"] != current:
        changed["fingerprint"] = current
    if changed:
        connection.execute(update(credentials).where(_is(credentials, credential)).values(**changed))


def _mark_of(row: Row[Any]) -> Mark:
    values = dict(row._mapping)
    return Mark(
        **{**values, "scope": Scope(values["scope"]), "error_class": ErrorClass(values["error_class"])}
    )


def marks_of(connection: Connection, provider: str) -> list[Mark]:
    """Return every mark of one provider, also those whose time has passed."""
    return [_mark_of(row) for row in connection.execute(_MARKS_OF, {"provider": provider})]


def all_marks(connection: Connection) -> list[Mark]:
    """Return every mark of every provider."""
    return [_mark_of(row) for row in connection.execute(select(*_MARK_COLUMNS).order_by(marks.c.id))]


def mark(connection: Connection, attempt: Attempt, new: NewMark, *, now: datetime) -> Mark | None:
    """Write the mark that an attempt has earned and return it as it now stands.

    None when an operator has reset the credential after the attempt started: a reset beats everything
    before it. The later of two deadlines stays. Raises AttributionRefused when the database finds that
    the attempt is not of that provider, credential, group or endpoint.
    """
    named = subject(new.scope, attempt)
    if _was_reset_since(connection, attempt, named):
        return None
    standing = _standing(connection, new, named)
    fingerprint = attempt.fingerprint if new.scope.on_credential else None
    of_another_secret = standing is not None and standing.fingerprint != fingerprint
    previous = None if of_another_secret else standing
    step = new.step_after(previous, attempt_started=attempt.started_at, now=now)
    until = new.until(step, now=now)
    facts = {
        "until": until,
        "until_source": new.source,
        "stated_until": _latest(new.stated, previous.stated_until if previous else None),
        "code": new.code,
        "fingerprint": fingerprint,
        "step": step,
        "made_at": now,
        "attempt_id": attempt.id,
    }
    try:
        with connection.begin_nested():
            if standing is None:
                row = {"scope": new.scope, "error_class": new.error_class, **named, **facts}
                connection.execute(insert(marks), row)
            elif attempt.started_at > standing.made_at if of_another_secret else _is_later(until, standing):
                connection.execute(update(marks).where(_exactly(new, named)).values(**facts))
    except IntegrityError as exc:
        raise AttributionRefused(
            f"attempt {attempt.id} did not earn a mark on {new.scope} of {attempt.target.provider}"
        ) from exc
    return _standing(connection, new, named)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _is_later(until: datetime | None, standing: Mark) -> bool:
    return standing.until is not None and (until is None or until >= standing.until)


def _standing(connection: Connection, new: NewMark, named: dict[str, str | None]) -> Mark | None:
    key = {"scope": new.scope, "error_class": new.error_class, **named}
    row = connection.execute(_STANDING, key).one_or_none()
    return _mark_of(row) if row else None


def _exactly(new: NewMark, named: dict[str, str | None]) -> ColumnElement[bool]:
    columns = (marks.c[name].is_not_distinct_from(value) for name, value in named.items())
    return and_(marks.c.scope == new.scope, marks.c.error_class == new.error_class, *columns)


def _is(table: object, credential: Credential, label_column: str = "label") -> ColumnElement[bool]:
    columns = table.c  # type: ignore[attr-defined]
    return and_(columns.provider == credential.provider, columns[label_column] == credential.label)


def _was_reset_since(connection: Connection, attempt: Attempt, named: dict[str, str | None]) -> bool:
    """Say whether a reset, since the attempt started, lifted what is about to be closed: see `reset`."""
    reset_at: datetime | None = connection.execute(_RESET_AT, named).scalar_one()
    return reset_at is not None and attempt.started_at <= reset_at


def clear_by_success(connection: Connection, attempt: Attempt) -> int:
    """Remove what a good answer disproves: transient marks on what it used, if older than its request.

    A refresh proves only that refreshing works: whether the model endpoint takes the new token is still
    to be seen. A proved death stays: only a login, a new secret or a reset lifts it. Returns how many went.
    """
    lifts = _DISPROVED_BY_REFRESH if attempt.purpose is Purpose.REFRESH else _DISPROVED
    return connection.execute(lifts, {**used_by(attempt), "started_at": attempt.started_at}).rowcount


def reset(connection: Connection, chosen: Collection[tuple[str, str]], *, now: datetime) -> int:
    """Lift every mark on the given (provider, label) credentials, their groups and their endpoints.

    Jobs that were held for them are let go. Requests that are in flight now will write no mark on them.
    Returns how many marks were lifted.
    """
    lifted = 0
    for provider, label in chosen:
        row = connection.execute(
            update(credentials)
            .where(credentials.c.provider == provider, credentials.c.label == label)
            .values(reset_at=now)
            .returning(credentials.c.quota_group)
        ).one_or_none()
        if row is None:
            continue
        lifted += connection.execute(
            delete(marks).where(
                marks.c.provider == provider,
                or_(
                    marks.c.credential == label,
                    marks.c.quota_group == row.quota_group,
                    and_(marks.c.credential.is_(null()), marks.c.quota_group.is_(null())),
                ),
            )
        ).rowcount
    holds.open_up(connection, chosen, now=now)
    return lifted


def lift_fingerprint(connection: Connection, credential: Credential) -> None:
    """Lift the marks on a credential itself: its login was made anew."""
    connection.execute(delete(marks).where(_is(marks, credential, "credential")))


def known(connection: Connection) -> dict[tuple[str, str], dict[str, object]]:
    """Return the rows of all credentials ever seen, by (provider, label)."""
    rows = connection.execute(select(credentials)).mappings()
    return {(row["provider"], row["label"]): dict(row) for row in rows}


def count_marks(connection: Connection) -> int:
    """Return how many marks there are, for tests of what must not be written."""
    return connection.execute(select(func.count()).select_from(marks)).scalar_one()
