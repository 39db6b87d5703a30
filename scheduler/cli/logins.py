"""Logins as commands meet them: which one is meant, and putting a new one in place of the old."""

import uuid
from typing import TYPE_CHECKING

from jobs import clock
from jobs.errors import SecretUnreadable, UsageError
from scheduler.cli.context import Context

if TYPE_CHECKING:
    from jobs.credential import Credential
    from jobs.providers.secrets import Keyring
    from jobs.providers.token_grant import Grant
    from jobs.store.tokens import SealedTokens

# ruff: noqa: PLC0415 - the store and what lies below are loaded when there is a login to keep


def chosen_login(context: Context, spelled: str, label: str | None, *, how: str) -> "Credential":
    """Return the OAuth credential that is meant; raises UsageError where none is, or several are.

    `how` says how to choose one of several.
    """
    from jobs.credential import CredentialKind

    provider = context.registry.provider(context.provider_name(spelled))
    logins = {each.label: each for each in provider.credentials if each.kind is CredentialKind.OAUTH}
    if not logins:
        keys = ", ".join(f"{each.label} ({each.source})" for each in provider.credentials)
        has = f"it has {keys}" if keys else "it has no credential"
        raise UsageError(f"{provider.name} has no OAuth login; {has}")
    if label is not None and label not in logins:
        raise UsageError(f"{provider.name} has no login {label}; there are: {', '.join(logins)}")
    if label is None and len(logins) > 1:
        raise UsageError(f"{provider.name} has several logins; {how}: {', '.join(logins)}")
    return logins[label] if label else next(iter(logins.values()))


def new_login_id() -> str:
    """Return an id for a login that has just been made: it is the fingerprint of its credential."""
    return uuid.uuid4().hex[:16]


def sealed_grant(
    grant: "Grant", credential: "Credential", client_id: str, keyring: "Keyring"
) -> "SealedTokens":
    """Return a first grant as it is stored."""
    from jobs.store.tokens import SealedTokens

    return SealedTokens(
        provider=credential.provider,
        label=credential.label,
        login_id=new_login_id(),
        generation=1,
        access_token=keyring.seal(grant.access),
        refresh_token=keyring.seal(grant.refresh) if grant.refresh else None,
        client_id=client_id,
        account_id=None,
        issued_at=grant.issued_at,
        expires_at=grant.expires_at,
        grant_ends_at=grant.ends_at,
    )


def keep(context: Context, credential: "Credential", login: "SealedTokens", keyring: "Keyring") -> None:
    """Put a login in the place of any before it, and lift the marks on its credential.

    Raises UsageError for one whose refresh token was sent already, without an answer: it would be sent again.
    """
    from jobs.store import credentials, tokens

    with context.writing() as connection:
        if _is_spent(tokens.load(connection, credential.provider, credential.label), login, keyring):
            raise UsageError(
                f"this is the login of {credential.provider} {credential.label} whose last refresh was not "
                "answered for: its refresh token may be spent; log in anew where it comes from and try again"
            )
        credentials.ensure(connection, credential, (login.login_id,), now=clock.utcnow())
        credentials.lift_fingerprint(connection, credential)
        tokens.save_login(connection, login)


def _is_spent(before: "SealedTokens | None", login: "SealedTokens", keyring: "Keyring") -> bool:
    if before is None or before.spent_by is None or not (before.refresh_token and login.refresh_token):
        return False
    try:
        return keyring.unseal(before.refresh_token) == keyring.unseal(login.refresh_token)
    except SecretUnreadable:  # sealed with a key that is gone: nobody can send it again
        return False


def stays_until(login: "SealedTokens") -> str:
    """Say how long a login lasts; empty where it is refreshed for ever, as far as is known."""
    from scheduler.cli import words

    if login.refresh_token is None:
        ends = f"ends at {words.moment(login.expires_at)}" if login.expires_at else "nobody says when it ends"
        return f"It cannot be refreshed, since no refresh token was granted, and {ends}."
    return f"It ends at {words.moment(login.grant_ends_at)}." if login.grant_ends_at else ""
