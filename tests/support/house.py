"""Everything that a chain works with, joined as `scheduler/app.py` joins it, on a database in a directory."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import select

from jobs import clock
from jobs.errors import ErrorClass
from jobs.events import Event, Events
from jobs.mark import Mark
from jobs.providers.call import Answered, Call, Rest, Shrink
from jobs.providers.chain import Chain
from jobs.providers.client import Client
from jobs.providers.gates import Gates
from jobs.providers.oauth import Refresher
from jobs.providers.registry import LOGIN_LABEL, Registry
from jobs.providers.rows import CredentialRow, OAuthRow, ProviderRow
from jobs.providers.rules import Rules
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.services import Services
from jobs.providers.vault import Vault
from jobs.request import Request
from jobs.secret import Redactor, Secret
from jobs.store import credentials, tokens
from jobs.store.store import Store
from jobs.store.tables import attempts as attempt_table
from jobs.store.tokens import SealedTokens
from jobs.target import Target
from support.ledger import make_database, url_of

SECRET_KEY = "the key of fingerprints and tokens at rest"
REQUEST = Request("What is new?")


@dataclass
class House:
    """The parts, and what happened in them. `say` is the environment: setting a variable changes a secret."""

    path: Path
    services: Services
    chain: Chain
    environ: dict[str, str]
    events: list[Event] = field(default_factory=list)

    @property
    def store(self) -> Store:
        """The way to the database."""
        return self.services.store

    def target(self, provider: str, model: str = "m") -> Target:
        """Return a target of one of the providers."""
        return self.services.registry.target(provider, model)

    async def complete(
        self,
        *targets: Target,
        within: float = 30,
        fallback_on: frozenset[ErrorClass] = frozenset(),
        repeat_safe: bool = False,
        waits: bool = False,
        shrink: Shrink | None = None,
        rest: Rest = nullcontext,
    ) -> Answered:
        """Ask a chain, with so many seconds for all of it; what is closed is waited for with `waits`."""
        call = Call(
            targets,
            clock.monotonic() + within,
            fallback_on=fallback_on,
            repeat_safe=repeat_safe,
            waits=waits,
            shrink=shrink,
            rest=rest,
        )
        return await self.chain.complete(REQUEST, call)

    async def attempts(self) -> list[Any]:
        """Return the rows of all attempts, oldest first."""
        query = select(attempt_table).order_by(attempt_table.c.id)
        return await self.store.read(lambda connection: list(connection.execute(query)))

    async def marks(self) -> list[Mark]:
        """Return all marks."""
        return await self.store.read(credentials.all_marks)

    async def login(self, provider: str) -> SealedTokens:
        """Return the stored login of a provider."""
        found = await self.store.read(tokens.load, provider, LOGIN_LABEL)
        assert found is not None
        return found

    async def log_in(
        self,
        provider: str,
        *,
        access: str = "access-0",
        refresh: str | None = "refresh-0",
        lifetime: timedelta = timedelta(hours=1),
        left: timedelta | None = None,
        login_id: str = "login-1",
        generation: int = 0,
    ) -> None:
        """Store a login, of whose lifetime so much is left."""
        now = clock.utcnow()
        expires_at = now + (lifetime if left is None else left)
        await self.store.write(
            self._save, provider, access, refresh, expires_at - lifetime, expires_at, login_id, generation
        )

    def _save(
        self,
        connection: Any,
        provider: str,
        access: str,
        refresh: str | None,
        issued_at: datetime,
        expires_at: datetime,
        login_id: str,
        generation: int,
    ) -> None:
        keyring = self.services.vault.keyring
        known = self.services.registry.provider(self.services.registry.canonical(provider))
        (login,) = (each for each in known.credentials if each.label == LOGIN_LABEL)
        credentials.ensure(connection, login, (login_id,), now=issued_at)
        tokens.save_login(
            connection,
            SealedTokens(
                provider=known.name,
                label=LOGIN_LABEL,
                login_id=login_id,
                generation=generation,
                access_token=keyring.seal(Secret(access)),
                refresh_token=keyring.seal(Secret(refresh)) if refresh else None,
                client_id="app",
                account_id="account-1",
                issued_at=issued_at,
                expires_at=expires_at,
            ),
        )


def keyed(url: str, *labels: str, group: str | None = None, **fields: Any) -> ProviderRow:
    """Return a provider with a key per label, each in the variable of the same name; one `KEY` if none."""
    rows = (CredentialRow(label=each, key=f"env:{each}", quota_group=group) for each in labels or ("KEY",))
    return ProviderRow(base_url=url, credentials=tuple(rows), **fields)


def logged_in(url: str, token_url: str, **fields: Any) -> ProviderRow:
    """Return a provider with one OAuth login."""
    login = CredentialRow(label=LOGIN_LABEL, oauth=OAuthRow(token_url=token_url, client_id="app"))
    return ProviderRow(base_url=url, credentials=(login,), **fields)


builtin_rules = cache(Rules.load_builtin)
"""The rules, which nobody can change: to read them takes longer than most tests."""


@asynccontextmanager
async def open_house(
    directory: Path,
    providers: Mapping[str, ProviderRow],
    *,
    environ: Mapping[str, str] | None = None,
    secret_keys: Sequence[str] = (SECRET_KEY,),
) -> AsyncIterator[House]:
    """Open the parts on `directory`, whose database is made if there is none; close them at the end."""
    path = directory / "promptd.db"
    if not path.exists():
        make_database(path).dispose()
    registry = Registry()
    for name, row in providers.items():
        registry.add(name, row)
    variables = {
        row.label: f"secret-of-{row.label}" for each in providers.values() for row in each.credentials
    }
    said = variables if environ is None else dict(environ)
    redactor, heard = Redactor(), list[Event]()
    vault = Vault(SecretReader(said, redactor), Keyring([Secret(key) for key in secret_keys]))
    store, client = Store(url_of(path)), Client()
    refresher = Refresher(store=store, client=client, keyring=vault.keyring, redactor=redactor)
    services = Services(
        registry=registry,
        rules=builtin_rules(),
        store=store,
        vault=vault,
        client=client,
        refresher=refresher,
        gates=Gates(),
        events=Events(heard.append),
        redactor=redactor,
    )
    try:
        yield House(path, services, Chain(services), said, heard)
    finally:
        await refresher.close()
        await client.close()
        await asyncio.to_thread(store.close)
