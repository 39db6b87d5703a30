"""A migrated database and the rows that tests of the store start from."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine

from jobs.attempt import Attempt, Purpose, Wait
from jobs.credential import Credential, CredentialKind
from jobs.names import ProviderName
from jobs.request import ApiMode
from jobs.store import attempts, credentials, instances
from jobs.store.attempts import Place
from jobs.store.engine import open_engine
from jobs.store.tables import metadata
from jobs.target import Target

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
URL = "https://api.z.ai/api/paas/v4"


def make_database(path: Path) -> Engine:
    """Make the tables in a new file and return its writing engine."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_bytes(_with_tables())
    return open_engine(url_of(path), writes=True)


@cache
def _with_tables() -> bytes:
    """Return a database file with all tables and nothing in them, made once in each process."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "promptd.db"
        engine = open_engine(url_of(path), writes=True)
        with engine.begin() as connection:
            metadata.create_all(connection)
        engine.dispose()
        return path.read_bytes()


def url_of(path: Path) -> str:
    """Return the URL of a database file."""
    return f"sqlite:///{path}"


def make_instance(connection: Connection) -> int:
    """Register this process and return its id."""
    return instances.register(connection, kind="daemon", version="0", now=NOW)


def key_of(label: str = "key", *, provider: str = "zai", group: str | None = None) -> Credential:
    """Return a credential that is a key."""
    return Credential(ProviderName(provider), label, CredentialKind.KEY, group=group)


def target_of(model: str = "glm-5", *, provider: str = "zai", base_url: str = URL) -> Target:
    """Return a target."""
    return Target(ProviderName(provider), model, base_url, ApiMode.CHAT_COMPLETIONS)


def send(
    connection: Connection,
    credential: Credential | None = None,
    target: Target | None = None,
    *,
    at: datetime = NOW,
    fingerprint: str = "f1",
    purpose: Purpose = Purpose.MAIN,
) -> Attempt:
    """Commit an attempt as `sent`, with its credential's row, and return it."""
    credential, target = credential or key_of(), target or target_of()
    credentials.ensure(connection, credential, (fingerprint,), now=at)
    place = Place(None, 1, purpose, 0)
    attempt_id = attempts.insert_sent(
        connection, place, target, credential, base_url=target.base_url, wait=Wait(), now=at
    )
    return Attempt(
        id=attempt_id,
        target=target,
        target_index=0,
        credential=credential,
        purpose=purpose,
        base_url=target.base_url,
        api_mode=target.api_mode,
        started_at=at,
        secret=None,
        fingerprint=fingerprint,
    )
