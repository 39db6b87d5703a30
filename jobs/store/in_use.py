"""Whether processes work on a database, of whichever revision: then its tables are not to be changed."""

from datetime import datetime

from sqlalchemy import Connection, inspect, text

from jobs.errors import Busy
from jobs.store import instances
from jobs.store.columns import UtcDateTime

_SAID = text(
    "SELECT kind, host, pid, pid_started, heartbeat_at, stopped_at FROM instances ORDER BY id"
).columns(heartbeat_at=UtcDateTime, stopped_at=UtcDateTime)


def require_idle(connection: Connection, *, now: datetime) -> None:
    """Raise Busy, naming one, while a daemon or a command works on the database."""
    if not inspect(connection).has_table("instances"):
        return
    for row in connection.execute(_SAID).mappings():
        if not instances.is_gone(row, now=now):
            what = "a daemon" if row["kind"] == "daemon" else "a command"
            mend = "stop it with `promptd stop`" if row["kind"] == "daemon" else "try again when it has ended"
            raise Busy(f"{what} uses the database (process {row['pid']} on {row['host']}); {mend}")
