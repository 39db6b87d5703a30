"""`promptd auth list`, `why` and `reset`: how credentials stand, what closed them, and lifting that."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from sqlalchemy import Connection

from jobs import clock
from jobs.credential import Readable, Unreadable
from jobs.errors import UsageError
from jobs.providers.registry import Provider
from jobs.store import credentials, ledger
from scheduler.cli import database
from scheduler.cli.auth_shapes import standing_line, standing_shape, why_blocks, why_shape
from scheduler.cli.context import Context
from scheduler.cli.login_notes import login_notes
from scheduler.cli.params import PROVIDER
from scheduler.cli.secrets import Look, configured, look, own_key_missing
from scheduler.cli.standing import Standing, standings
from scheduler.cli.tables import Table, View, shown

TITLES = ("PROVIDER", "CREDENTIAL", "SCOPE", "SOURCE", "STATUS", "LAST USED", "LOGIN ENDS")


@click.command("list")
@shown
def list_(context: Context) -> View:
    """List credentials and how they stand.

    One row for each credential, and one for each live mark on a model, a quota group or an endpoint.
    """
    now = clock.utcnow()
    with context.reading() as connection:
        rows, notes = read_standings(context, connection, now=now)
    return View(
        [standing_shape(row) for row in rows],
        [Table(TITLES, [standing_line(row, now=now) for row in rows], none="no credentials")],
        notes=notes,
    )


@click.command("why")
@click.argument("provider", type=PROVIDER)
@click.argument("label", required=False)
@shown
def why(context: Context, provider: str, label: str | None) -> View:
    """Print the attempts behind each mark on a provider's credentials, groups and endpoints."""
    now = clock.utcnow()
    known = context.registry.provider(context.provider_name(provider))
    looked = look(context)
    with context.reading() as connection:
        opened = looked.vault.look(connection, known, now=now)
        _require_label(connection, known, label)
        rows = standings(connection, [(known, opened)], looked, now=now)
        chosen = [row for row in _once(rows) if label is None or _concerns(row, label, opened)]
        attempts = _attempts(connection, chosen)
    return View(
        [why_shape(row, attempts) for row in chosen],
        why_blocks(chosen, attempts, known.name, now=now),
        notes=_notes(context, looked),
    )


@click.command("reset")
@click.argument("provider", type=PROVIDER)
@click.argument("label", required=False)
@shown
def reset(context: Context, provider: str, label: str | None) -> View:
    """Lift the marks on a provider's credentials, or on one of them.

    A running daemon uses them again at once; requests that are under way now leave no mark.
    """
    known = context.registry.provider(context.provider_name(provider))
    opened = context.writing if database.is_there(context.settings.database) else context.reading
    with opened() as connection:  # where there is no database there is nothing to lift
        labels = _require_label(connection, known, label)
        lifted = credentials.reset(connection, [(known.name, each) for each in labels], now=clock.utcnow())
    named = f"{known.name} {label}" if label else known.name
    data = {"provider": known.name, "labels": labels, "lifted": lifted}
    return View(data, [f"{named}: {lifted} mark{'' if lifted == 1 else 's'} lifted"])


def read_standings(
    context: Context, connection: Connection, *, now: datetime
) -> tuple[list[Standing], list[str]]:
    """Return how every configured credential stands, and notes on logins and what cannot be seen here."""
    looked = look(context)
    found = configured(context, connection, looked.vault, now=now)
    rows = standings(connection, found, looked, now=now)
    return rows, [*_notes(context, looked), *login_notes(connection, found, rows, now=now)]


def _notes(context: Context, looked: Look) -> list[str]:
    if looked.trouble is None or own_key_missing(context.settings):
        return []
    return [f"secret_key cannot be read here ({looked.trouble}); fingerprints are those last seen"]


def _require_label(connection: Connection, provider: Provider, label: str | None) -> list[str]:
    """Return the labels that are meant; raises UsageError for one that the provider does not have."""
    labels = list(dict.fromkeys(each.label for each in provider.credentials))
    labels += [name for owner, name in credentials.known(connection) if owner == provider.name]
    labels = list(dict.fromkeys(labels))
    if label is None:
        return labels
    if label not in labels:
        has = f"it has {', '.join(labels)}" if labels else "it has none"
        raise UsageError(f"{provider.name} has no credential {label!r}; {has}")
    return [label]


def _once(rows: Sequence[Standing]) -> list[Standing]:
    """Return the rows with a mark, each mark once: a group's mark also closes its credentials."""
    own = [row for row in rows if row.mark is not None and row.mark.scope is row.scope]
    return sorted(own, key=lambda row: row.mark.attempt_id if row.mark else 0)


def _concerns(row: Standing, label: str, opened: Sequence[Readable | Unreadable]) -> bool:
    mark = row.mark
    assert mark is not None
    group = next((each.credential.quota_group for each in opened if each.credential.label == label), None)
    return mark.credential in (None, label) and mark.quota_group in (None, group)


def _attempts(connection: Connection, rows: Sequence[Standing]) -> Mapping[int, Mapping[str, Any]]:
    ids = [row.mark.attempt_id for row in rows if row.mark]
    return {row["id"]: row for row in ledger.attempts_by_id(connection, ids)}
