"""Which revision of the tables this program wants, without loading Alembic to know it."""

from sqlalchemy import Connection, inspect, text

from jobs.errors import Unavailable

REVISION = "0004"


class OtherRevision(Unavailable):
    """The tables are not those of this program."""


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return revision


def require(connection: Connection) -> None:
    """Raise OtherRevision unless the database is at `REVISION`; revisions are numbered as they come."""
    found = revision_of(connection)
    if found is not None and found > REVISION:
        raise OtherRevision(newer(found))
    if found != REVISION:
        raise OtherRevision(
            f"the database is at revision {found or 'none'}, this promptd wants {REVISION}; "
            "run `promptd db upgrade`"
        )


def newer(found: str) -> str:
    """Say what to do with a database that a later version of this program has migrated."""
    return f"the database is of a newer promptd (revision {found}); start that version, or restore a backup"
