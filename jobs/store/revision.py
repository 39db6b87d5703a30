"""Which revision of the tables this program wants, without loading Alembic to know it."""

from sqlalchemy import Connection, inspect, text

from jobs.errors import Unavailable

REVISION = "0002"


def revision_of(connection: Connection) -> str | None:
    """Return the revision of a database, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar_one_or_none()
    return revision


def require(connection: Connection) -> None:
    """Raise Unavailable unless the database is at `REVISION`."""
    found = revision_of(connection)
    if found != REVISION:
        raise Unavailable(
            f"the database is at revision {found or 'none'}, this promptd wants {REVISION}; "
            "run `promptd db upgrade`"
        )
