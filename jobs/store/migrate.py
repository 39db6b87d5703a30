"""Bringing a database to the revision of this program, or back: a verified backup, then one transaction."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from jobs.errors import Unavailable, UsageError
from jobs.store import in_use, postgresql, shape
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
    """Migrate a database to `head()`, and make the indexes that it lacks.

    Return the backup that was made, None where none was needed. Raises Unavailable for a database of a newer
    program, ConfigError for one that lacks a table or a column: nothing is done to them.
    """
    found, lost = _looked_at(url)
    if found == head() and not lost.anything:
        return None
    if found is not None and found not in revisions():
        raise Unavailable(newer(found))
    backup = _backup(url, found, now) if found is not None else None
    try:
        with _connection(url) as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            shape.make_indexes(connection)
    except BaseException:
        if backup is not None:  # nothing was changed; whoever tries again makes another
            backup.unlink(missing_ok=True)
        raise
    return backup


def _looked_at(url: str) -> tuple[str | None, shape.Missing]:
    """Return a database's revision, and which indexes it lacks; raises ConfigError where it lacks more."""
    with _connection(url) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        lost = shape.missing_from(connection, found)
        lost.require_rows(shape.place_of(connection))
        return found, lost


def revisions() -> tuple[str, ...]:
    """Return every revision that this program knows, the oldest first."""
    script = ScriptDirectory.from_config(_config())
    return tuple(reversed([each.revision for each in script.walk_revisions()]))


@dataclass(frozen=True, slots=True)
class WentBack:
    """From which revision to which, and the backup; `given_up` counts rows that `revision` cannot hold."""

    before: str
    revision: str
    backup: Path | None
    given_up: Mapping[str, int]


def go_back(url: str, *, to: str | None, now: datetime) -> WentBack:
    """Bring a database to an older revision, the one before unless `to` names it; a backup comes first.

    Raises Busy while a process works on the database, UsageError for a revision that is not behind this one,
    Unavailable for a database that is empty or of a newer program, ConfigError for one that lacks something.
    """
    with _connection(url) as connection:
        in_use.require_idle(connection, now=now)
        found = MigrationContext.configure(connection).get_current_revision()
        if found == head():
            shape.require(connection)
    target = _behind(found, to)
    backup = _backup(url, target.before, now)
    with _connection(url) as connection:
        in_use.require_idle(connection, now=now)
        rows = _counted(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, target.to)
        left = _counted(connection)
    given_up = {table: number - left.get(table, 0) for table, number in rows.items()}
    return WentBack(
        target.before, target.to, backup, {table: number for table, number in given_up.items() if number > 0}
    )


@dataclass(frozen=True, slots=True)
class _Step:
    before: str
    to: str


def _behind(found: str | None, wanted: str | None) -> _Step:
    """Return the step from a revision to an older one; raises Unavailable, UsageError."""
    if found is None:
        raise Unavailable("the database is empty: there is nothing to go back from")
    if found not in revisions():
        raise Unavailable(newer(found))
    older = revisions()[: revisions().index(found)]
    if not older or (wanted is not None and wanted not in older):
        known = f"one of {', '.join(older)}" if older else "there is none"
        raise UsageError(f"{wanted or 'nothing'} is no revision before {found}; {known}")
    return _Step(found, wanted or older[-1])


def _counted(connection: Connection) -> dict[str, int]:
    names = inspect(connection).get_table_names()
    return {
        name: connection.execute(text(f'SELECT count(*) FROM "{name}"')).scalar_one()  # noqa: S608 - our tables
        for name in names
    }


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
