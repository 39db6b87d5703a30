"""Bringing a database to the revision of this program: a verified backup first, then one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobs.errors import Unavailable
from jobs.store import postgresql
from jobs.store.backup import back_up
from jobs.store.engine import open_engine, sqlite_path
from jobs.store.revision import newer
from jobs.store.tables import metadata


def head() -> str:
    """Return the newest revision that this program knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(url: str) -> str | None:
    """Return the revision of a database, None for an empty one."""
    with _connection(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str, *, now: datetime) -> Path | None:
    """Migrate a database to `head()`; return the backup that was made, None where none was needed.

    Raises Unavailable for a database of a newer program: nothing is done to it.
    """
    found = current(url)
    if found == head():
        return None
    known = {revision.revision for revision in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise Unavailable(newer(found))
    backup = _backup(url, found, now) if found is not None else None
    with _connection(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return backup


def require_current(url: str) -> None:
    """Raise Unavailable unless the database is at `head()`."""
    found = current(url)
    if found != head():
        raise Unavailable(
            f"the database is at revision {found or 'none'}, this promptd wants {head()}; "
            "run `promptd db upgrade`"
        )


def differences(url: str) -> list[object]:
    """Return what the tables of a migrated database lack or have too much, compared with `tables.py`."""
    with _connection(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def downgrade(url: str, revision: str) -> None:
    """Go back to an older revision, or to `base`."""
    with _connection(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            postgresql.without_limit(connection)
            yield connection
    finally:
        engine.dispose()


def _backup(url: str, revision: str, now: datetime) -> Path | None:
    path = sqlite_path(url)
    if path is None:
        return None  # a server's database is backed up with the server's own tools
    target = path.with_name(f"{path.name}.{revision}.{now:%Y%m%dT%H%M%S}.bak")
    return back_up(path, target).path
