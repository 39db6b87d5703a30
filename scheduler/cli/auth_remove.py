"""`promptd auth remove`: forget a login. What has happened with it stays in the ledger."""

from typing import TYPE_CHECKING

import click

from jobs.errors import UsageError
from scheduler.cli.context import Context, pass_context
from scheduler.cli.params import PROVIDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from jobs.credential import Credential
    from jobs.providers.registry import Provider

# ruff: noqa: PLC0415 - the store is loaded when there is a login to forget


@click.command("remove")
@click.argument("provider", type=PROVIDER)
@click.argument("label", required=False)
@pass_context
def remove(context: Context, provider: str, label: str | None) -> int:
    """Forget the login of PROVIDER, with the marks on it; runs and attempts stay in the ledger.

    LABEL chooses one of several. The provider is not told: revoke the login there if it is to end everywhere.
    """
    from jobs.store import tokens
    from scheduler.cli import database

    known = context.registry.provider(context.provider_name(provider))
    opened = context.writing if database.is_there(context.settings.database) else context.reading
    with opened() as connection:
        stored = tokens.labels(connection, known.name)
        chosen = _chosen(known, stored, label)
        forgotten = chosen in stored and _forget(connection, known, chosen)
    done = "its login is forgotten" if forgotten else "nobody was logged in"
    click.echo(f"{known.name} {chosen}: {done}")
    return 0


def _forget(connection: "Connection", provider: "Provider", label: str) -> bool:
    from jobs.credential import Credential, CredentialKind
    from jobs.store import credentials, tokens

    credentials.lift_fingerprint(connection, Credential(provider.name, label, CredentialKind.OAUTH))
    return tokens.forget(connection, provider.name, label)


def _chosen(provider: "Provider", stored: "Sequence[str]", label: str | None) -> str:
    """Return the label that is meant: a configured login, or one whose configuration is gone.

    Raises UsageError; for a key it says where that is configured, since it is not kept here.
    """
    from jobs.credential import CredentialKind

    logins = [each.label for each in provider.credentials if each.kind is CredentialKind.OAUTH]
    logins = list(dict.fromkeys([*logins, *stored]))
    own = [each for each in provider.credentials if label in (None, each.label)]
    if label in logins or (label is None and len(logins) == 1):
        return label or logins[0]
    if label is None and logins:
        raise UsageError(f"{provider.name} has several logins; name one of them: {', '.join(logins)}")
    if own:
        raise UsageError(
            "; ".join(f"{provider.name} {each.label} is no login: {_place(each)}" for each in own)
        )
    raise UsageError(f"{provider.name} has no credential {label or ''}".rstrip())


def _place(credential: "Credential") -> str:
    """Say where a key is configured, and what takes it away."""
    if credential.reference is None:
        return "it needs no key"
    if credential.implicit:
        return f"its key is the variable {credential.reference.name}; unset it"
    return (
        f"its key is {credential.source}; take it out of providers.{credential.provider}.credentials in the "
        "configuration"
    )
