"""The credentials of a configuration as this process can read them: nothing is created or written for it."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from jobs.credential import CredentialKind, Readable, Unreadable
from jobs.errors import SecretUnreadable
from jobs.names import ProviderName
from jobs.providers.registry import Provider
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.vault import Vault
from jobs.secret import Secret
from scheduler.cli.context import Context
from scheduler.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Look:
    """A vault that is only looked into. `trouble` says why fingerprints made here mean nothing, if so."""

    vault: Vault
    trouble: str | None = None

    @property
    def fingerprints_count(self) -> bool:
        """Whether fingerprints are made with the key that the daemon uses."""
        return self.trouble is None


def look(context: Context) -> Look:
    """Return the vault of the configuration; where its secret_key cannot be read, one with a passing key."""
    reader = SecretReader(context.environ, context.redactor, files=context.secret_files)
    trouble = None
    try:
        keyring = Keyring([reader.read(key) for key in context.settings.secret_keys])
    except SecretUnreadable as exc:
        trouble = str(exc)
        keyring = Keyring([Secret(secrets.token_urlsafe(48))])
    return Look(Vault(reader, keyring), trouble)


def own_key_missing(settings: Settings) -> bool:
    """Say whether the secret_key is the one that `promptd start` makes, and has not made yet."""
    (first, *others) = settings.secret_keys
    path = Path(first.name)
    return not others and first.scheme == "file" and path.parent == settings.state_dir and not path.exists()


def used_providers(context: Context) -> set[ProviderName]:
    """Return the providers that the configuration names: in a target, or under `providers:`."""
    settings = context.settings
    chains = [settings.chain]
    chains.extend(job.job.chain for job in settings.jobs.values())
    chains.extend(task.chain for task in settings.auxiliary.values())
    named = {context.registry.canonical(entry) for entry in context.loaded.file.providers}
    return named | {target.provider for chain in chains for target in chain}


def configured(
    context: Context, connection: Connection, vault: Vault, *, now: datetime
) -> list[tuple[Provider, Sequence[Readable | Unreadable]]]:
    """Return the configured providers with their credentials as they can be read now.

    Configured are those that the files name, and built-in ones with a key variable that is set, or a login.
    """
    used = used_providers(context)
    found = [(each, vault.look(connection, each, now=now)) for each in context.registry]
    return [
        (provider, opened) for provider, opened in found if provider.name in used or any(map(_is_own, opened))
    ]


def _is_own(opened: Readable | Unreadable) -> bool:
    return isinstance(opened, Readable) and opened.credential.kind is not CredentialKind.NONE
