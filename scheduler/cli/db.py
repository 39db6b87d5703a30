"""`promptd db upgrade` and `current`: bringing the database to this version, and seeing where it is."""

from urllib.parse import urlsplit

import click

from jobs import clock
from jobs.store import revision, shape
from jobs.store.engine import open_engine, sqlite_path
from scheduler.cli import database
from scheduler.cli.context import Context
from scheduler.cli.tables import View, shown


@click.command("upgrade")
@shown
def upgrade(context: Context) -> View:
    """Migrate the database to this version, and make the indexes that it lacks.

    A verified backup of a SQLite file is made first; the migration is one transaction.
    """
    from jobs.store import migrate  # noqa: PLC0415 - Alembic is loaded by this command alone

    url = context.settings.database
    before, lost = looked_at(url)
    backup = migrate.upgrade(url, now=clock.utcnow())
    after, _ = looked_at(url)
    data = {
        "database": shown_name(url),
        "from": before,
        "revision": after,
        "backup": str(backup) if backup else None,
        "changed": before != after or bool(lost),
    }
    changed = f"migrated from revision {before or 'none'} to {after}" if before != after else f"is at {after}"
    if lost:
        changed += f"; it lacked {', '.join(lost)}, which was made"
    kept = f"; the backup is {backup}" if backup else ""
    return View(data, [f"{shown_name(url)}: {changed}{kept}"])


@click.command("current")
@shown
def current(context: Context) -> View:
    """Print the database's revision, and whether it is the one that this version wants."""
    url = context.settings.database
    (found, _), wanted = looked_at(url), revision.REVISION
    data = {
        "database": shown_name(url),
        "revision": found,
        "wanted": wanted,
        "current": found == wanted,
    }
    wish = f"this promptd wants {wanted}; run `promptd db upgrade`"
    state = "which is current" if found == wanted else wish
    return View(data, [f"{shown_name(url)}: revision {found or 'none'}, {state}"])


def shown_name(url: str) -> str:
    """Return a database as people are told of it: a file's path, or a URL without its login."""
    path = sqlite_path(url)
    if path is not None:
        return str(path)
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def looked_at(url: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the database's revision, None when there is none or it is empty; and the indexes it lacks."""
    if not database.is_there(url):
        return None, ()
    engine = open_engine(url, writes=False)
    try:
        with engine.connect() as connection:
            found = revision.revision_of(connection)
            return found, shape.missing_from(connection, found).indexes
    finally:
        engine.dispose()
