"""How every credential stands: status from secrets, logins and marks, judged at one moment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from jobs.credential import CredentialKind, Readable, Unreadable
from jobs.errors import ErrorClass
from jobs.mark import FOR_EVER, Mark, Scope, Status
from jobs.providers.registry import Provider
from jobs.store import credentials, ledger, tokens
from scheduler.cli.secrets import Look

_LABEL_GROUP = "credential:"


@dataclass(frozen=True, slots=True)
class Standing:
    """One row of `auth list`: a credential, or a live mark on a model, a group or an endpoint.

    `until` None means that no time is known; `group` is the quota group that a credential was given; `why`
    says what to do about a secret that cannot be read.
    """

    provider: str
    label: str | None
    kind: str | None
    source: str
    scope: Scope
    status: Status
    fingerprint: str | None = None
    mark: Mark | None = None
    until: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    why: str | None = None
    group: str | None = None

    @property
    def reason(self) -> ErrorClass | None:
        """The error class behind the status; None when nothing stands against it."""
        if self.mark is not None:
            return self.mark.error_class
        return ErrorClass.CONFIG_ERROR if self.status is Status.UNREADABLE else None


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of one provider's credentials, and when it is judged."""

    marks: Sequence[Mark]
    rows: Mapping[tuple[str, str], Mapping[str, object]]
    last_used: Mapping[tuple[str, str], datetime]
    look: Look
    now: datetime
    expiries: Mapping[tuple[str, str], datetime | None] = field(default_factory=dict)


def standings(
    connection: Connection,
    found: Sequence[tuple[Provider, Sequence[Readable | Unreadable]]],
    look: Look,
    *,
    now: datetime,
) -> list[Standing]:
    """Return every credential of the providers, each provider's followed by its other live marks."""
    known = Known(
        credentials.all_marks(connection),
        credentials.known(connection),
        ledger.last_used(connection),
        look,
        now,
        _expiries(connection, found),
    )
    return [row for provider, opened in found for row in _of_provider(provider, opened, known)]


def live_until(mark: Mark, opened: Sequence[Readable | Unreadable], known: Known) -> datetime | None:
    """Return until when a mark closes what it names (FOR_EVER: no time known), or None when it does not."""
    own = next((each for each in opened if each.credential.label == mark.credential), None)
    if mark.credential is not None and own is None:
        return None
    return mark.closed_until(
        known.now,
        fingerprints=_fingerprints(own, known) if own else (),
        only_credential=len(opened) == 1,
    )


def _fingerprints(opened: Readable | Unreadable, known: Known) -> tuple[str, ...]:
    """Return today's fingerprints; where they cannot be made here, the one that was last seen."""
    credential = opened.credential
    keyed = credential.kind is CredentialKind.KEY
    if isinstance(opened, Readable) and (not keyed or known.look.fingerprints_count):
        return opened.fingerprints
    stored = known.rows.get((credential.provider, credential.label), {}).get("fingerprint")
    return (str(stored),) if stored else ()


def _of_provider(
    provider: Provider, opened: Sequence[Readable | Unreadable], known: Known
) -> Iterator[Standing]:
    live = [
        (until, mark)
        for mark in known.marks
        if mark.provider == provider.name and (until := live_until(mark, opened, known))
    ]
    for each in opened:
        yield _credential(each, live, known)
    for until, mark in live:
        if mark.scope is not Scope.CREDENTIAL:
            yield _marked(mark, until, opened)


def _credential(
    opened: Readable | Unreadable, live: Sequence[tuple[datetime, Mark]], known: Known
) -> Standing:
    """Return the row of a credential: closed by marks on itself or its group, whatever the model."""
    credential = opened.credential
    key = (credential.provider, credential.label)
    closing = [(until, mark) for until, mark in live if mark.closes(credential)]
    until, mark = max(closing, key=lambda pair: pair[0], default=(None, None))
    status = mark.status if mark else Status.OK
    if isinstance(opened, Unreadable):
        status, until, mark = Status.UNREADABLE, None, None
    nothing_to_print = credential.kind is CredentialKind.NONE
    return Standing(
        credential.provider,
        credential.label,
        credential.kind,
        credential.source,
        Scope.CREDENTIAL,
        status,
        fingerprint=None if nothing_to_print else next(iter(_fingerprints(opened, known)), None),
        mark=mark,
        until=_time(until),
        last_used_at=known.last_used.get(key),
        expires_at=known.expiries.get(key),
        why=opened.why if isinstance(opened, Unreadable) else None,
        group=credential.group,
    )


def _marked(mark: Mark, until: datetime, opened: Sequence[Readable | Unreadable]) -> Standing:
    """Return the row of a mark on a model, a group or an endpoint."""
    group = (mark.quota_group or "").removeprefix(_LABEL_GROUP) or None
    label = mark.credential or group
    own = next((each.credential for each in opened if each.credential.label == label), None)
    return Standing(
        mark.provider,
        label,
        own.kind if own else None,
        mark.base_url or (own.source if own else "quota group"),
        mark.scope,
        mark.status,
        fingerprint=mark.fingerprint,
        mark=mark,
        until=_time(until),
    )


def _time(until: datetime | None) -> datetime | None:
    return None if until == FOR_EVER else until


def _expiries(
    connection: Connection, found: Sequence[tuple[Provider, Sequence[Readable | Unreadable]]]
) -> dict[tuple[str, str], datetime | None]:
    logins = [
        each.credential
        for _, opened in found
        for each in opened
        if each.credential.kind is CredentialKind.OAUTH
    ]
    stored = ((c, tokens.load(connection, c.provider, c.label)) for c in logins)
    return {(c.provider, c.label): login.expires_at for c, login in stored if login}
