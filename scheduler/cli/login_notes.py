"""What people are told about logins beside the table: which must be made anew, by when, and how."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from jobs.credential import Credential, CredentialKind, Readable, Unreadable
from jobs.mark import Scope, Status
from jobs.providers.login_times import ends_at, is_ending
from jobs.providers.registry import Provider
from jobs.providers.vault import way_in
from jobs.store import tokens
from scheduler.cli import words
from scheduler.cli.standing import Standing


def login_notes(
    connection: Connection,
    found: Sequence[tuple[Provider, Sequence[Readable | Unreadable]]],
    rows: Iterable[Standing],
    *,
    now: datetime,
) -> list[str]:
    """Return a line for each login that is dead, and for each that is about to end."""
    dead = {
        (row.provider, row.label)
        for row in rows
        if row.status is Status.DEAD and row.scope is Scope.CREDENTIAL
    }
    logins = [
        each.credential
        for _, opened in found
        for each in opened
        if each.credential.kind is CredentialKind.OAUTH
    ]
    notes = []
    for login in logins:
        if (login.provider, login.label) in dead:
            notes.append(f"{login.provider} {login.label} is dead: log in again with {way_in(login)}")
        elif said := _ending(connection, login, now):
            notes.append(said)
    return notes


def _ending(connection: Connection, login: Credential, now: datetime) -> str | None:
    sealed = tokens.load(connection, login.provider, login.label)
    end = ends_at(sealed) if sealed and is_ending(sealed, now=now) else None
    if end is None:
        return None
    when = f"in {words.length(end - now)}, at {words.moment(end)}"
    return f"{login.provider} {login.label}: the login ends {when}; log in again with {way_in(login)}"
