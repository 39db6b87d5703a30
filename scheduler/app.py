"""The composition root: the one place where the parts of the program are made and joined."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from jobs import clock
from jobs.commands import Commands, without_secrets
from jobs.delivery.outgoing import Outgoing
from jobs.delivery.send import Tools
from jobs.errors import ConfigError, Fault, SecretDelayed, SecretUnreadable, Unavailable
from jobs.events import Events, WriteFailed
from jobs.providers.chain import Chain
from jobs.providers.client import Client
from jobs.providers.gates import Gates
from jobs.providers.oauth import Refresher
from jobs.providers.rules import Rules
from jobs.providers.secret_files import SecretFiles
from jobs.providers.secrets import Keyring, SecretReader, make_secret_key
from jobs.providers.services import Services
from jobs.providers.vault import Vault
from jobs.secret import Redactor, secrets_in_headers
from jobs.store import instances, revision, shape
from jobs.store.engine import kind_of, open_engine, sqlite_path
from jobs.store.file_modes import require_private_database, require_private_key
from jobs.store.revision import revision_of
from jobs.store.store import Store
from jobs.workshop import Workshop
from scheduler import __version__, delivery_secrets
from scheduler.config.settings import Settings

logger = logging.getLogger(__name__)

_MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class App:
    """What a process works with while it is open."""

    settings: Settings
    store: Store
    services: Services
    workshop: Workshop
    events: Events
    redactor: Redactor
    tools: Tools


def open_vault(
    settings: Settings, environ: Mapping[str, str], redactor: Redactor, *, files: SecretFiles | None = None
) -> Vault:
    """Return the vault of a configuration; raises ConfigError when its secret_key cannot be read.

    Raises Unavailable where only its disk is to blame: a service manager tries that again.
    """
    reader = SecretReader(environ, redactor, files=files)
    for provider in settings.registry:
        redactor.learn(secrets_in_headers(provider.headers))
    try:
        _make_own_key(settings)
        keyring = Keyring([reader.read(reference) for reference in settings.secret_keys])
    except SecretDelayed as exc:
        raise Unavailable(f"secret_key: {exc}") from exc
    except SecretUnreadable as exc:
        raise ConfigError(
            [
                Fault(
                    settings.source,
                    0,
                    0,
                    "secret_key",
                    str(exc),
                    "name a readable secret of 32 characters or more",
                )
            ]
        ) from exc
    return Vault(reader, keyring)


def _make_own_key(settings: Settings) -> None:
    """Write the key that nobody has to name; raises Unavailable where the state directory takes no file.

    Raises ConfigError where others may read or change the key.
    """
    if len(settings.secret_keys) != 1 or settings.secret_keys[0].scheme != "file":
        return
    own = Path(settings.secret_keys[0].name)
    if own.parent != settings.state_dir:
        return
    try:
        make_secret_key(own)
    except OSError as exc:
        raise Unavailable(
            f"cannot write {own}: {exc.strerror}; check state_dir, its owner, and the room on its disk"
        ) from exc
    require_private_key(own)


def rules_of(settings: Settings) -> Rules:
    """Return the error rules: the built-in ones, the users' own before them."""
    rules = Rules.load_builtin()
    for provider in settings.registry:
        if provider.errors:
            rules = rules.with_user_rules(provider.name, provider.errors)
    return rules


def ensure_database(settings: Settings) -> None:
    """Make the tables of an empty database; leave any other as it is."""
    if _found(settings.database) is None:
        up_to_date(settings.database)


def up_to_date(database: str) -> Path | None:
    """Bring a database to this program's revision; return the backup that was made, None where none was.

    A missing index is made; raises ConfigError for a database that others may read or change, or that lacks
    more. Alembic, which takes 11 MB, is loaded only where there is something to do.
    """
    path = sqlite_path(database)
    if path is not None:
        require_private_database(path)  # before SQLite empties the log beside it, and takes it away
    if _is_whole(database):
        return None
    from jobs.store import migrate  # noqa: PLC0415

    return migrate.upgrade(database, now=clock.utcnow())


def _is_whole(database: str) -> bool:
    """Say whether a database is at this program's revision, with all that it has to have."""
    engine = open_engine(database, writes=False)
    try:
        with engine.connect() as connection:
            found = revision_of(connection)
            return found == revision.REVISION and not shape.missing_from(connection, found).anything
    finally:
        engine.dispose()


def _found(database: str) -> str | None:
    engine = open_engine(database, writes=False)
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    finally:
        engine.dispose()


async def _say_stopped(store: Store, instance: int) -> None:
    """Note the end of this process; where that cannot be written, its absence says it later."""
    try:
        await store.write(instances.stop, instance, now=clock.utcnow())
    except (DBAPIError, Unavailable) as exc:
        logger.warning("the end of this process could not be written: %s", getattr(exc, "orig", exc))


def _services(settings: Settings, store: Store, vault: Vault, events: Events, redactor: Redactor) -> Services:
    client = Client()
    return Services(
        registry=settings.registry,
        rules=rules_of(settings),
        store=store,
        vault=vault,
        client=client,
        refresher=Refresher(store=store, client=client, keyring=vault.keyring, redactor=redactor),
        gates=Gates(),
        events=events,
        redactor=redactor,
    )


def tools_of(
    settings: Settings,
    environ: Mapping[str, str],
    redactor: Redactor,
    *,
    outgoing: Outgoing,
    files: SecretFiles | None = None,
) -> Tools:
    """Return what deliveries are sent with; `outgoing` is its maker's to close."""
    commands = Commands(without_secrets(environ, settings.registry, settings.withheld()), redactor)
    reader = SecretReader(environ, redactor, files=files)
    return Tools(reader, redactor, commands, outgoing, settings.own_files())


def _joined(settings: Settings, services: Services, instance: int, tools: Tools) -> App:
    redactor = services.redactor
    workshop = Workshop(services.store, Chain(services), services.events, redactor, tools.commands, instance)
    return App(settings, services.store, services, workshop, services.events, redactor, tools)


async def _learn_deliveries(
    settings: Settings, environ: Mapping[str, str], redactor: Redactor, files: SecretFiles, *, tells: bool
) -> None:
    """Have the redactor know the secrets of deliveries and heartbeats; with `tells` log what is unusable."""
    unusable = await asyncio.to_thread(delivery_secrets.learn_all, settings, environ, redactor, files=files)
    for each in unusable[:_MOST_TOLD] if tells else ():
        logger.warning("%s", each)
    if tells and len(unusable) > _MOST_TOLD:
        logger.warning(
            "%d more secrets of deliveries cannot be used; see `promptd check`", len(unusable) - _MOST_TOLD
        )


async def reconfigured(app: App, settings: Settings, environ: Mapping[str, str]) -> App:
    """Return the parts as another configuration wants them; database, connections, gates and disks stay.

    Runs that have begun go on with what they began with. Raises ConfigError as `open_app` does.
    """
    files = app.tools.secrets.files
    vault = await asyncio.to_thread(open_vault, settings, environ, app.redactor, files=files)
    await app.store.read(vault.learn_all, settings.registry)
    await _learn_deliveries(settings, environ, app.redactor, files, tells=True)
    services = replace(app.services, registry=settings.registry, rules=rules_of(settings), vault=vault)
    tools = tools_of(settings, environ, app.redactor, outgoing=app.tools.outgoing, files=files)
    tools = replace(tools, disks=app.tools.disks)
    return _joined(settings, services, app.workshop.instance_id, tools)


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    environ: Mapping[str, str],
    kind: str,
    redactor: Redactor,
    events: Events | None = None,
    make_store: Callable[..., Store] = Store,
) -> AsyncIterator[App]:
    """Open everything that running prompts needs, and close it in the reverse order.

    `kind` is `daemon` or `command`. The database must be at this program's revision; `make_store` opens it.
    """
    events, files = events or Events(), SecretFiles()
    vault = open_vault(settings, environ, redactor, files=files)

    def trouble(error: DBAPIError) -> None:
        events.emit(WriteFailed(kind_of(error), str(error.orig)))

    store = make_store(settings.database, on_trouble=trouble)
    try:
        await store.read(revision.require)
        await store.read(shape.require)
        await store.read(vault.learn_all, settings.registry)
        await _learn_deliveries(settings, environ, redactor, files, tells=kind == "daemon")
        instance = await store.write(instances.register, kind=kind, version=__version__, now=clock.utcnow())
        services = _services(settings, store, vault, events, redactor)
        tools = tools_of(settings, environ, redactor, outgoing=Outgoing(redactor), files=files)
        try:
            yield _joined(settings, services, instance, tools)
        finally:
            await tools.outgoing.close()
            await services.refresher.close()
            await services.client.close()
            await _say_stopped(store, instance)
    finally:
        await asyncio.to_thread(store.close)
