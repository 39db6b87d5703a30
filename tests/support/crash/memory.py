"""What had come to its end before a crash, kept to be compared with what stands there afterwards.

Of a delivery that is under way, what it is and its key are final already.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FINAL = {
    "run": "SELECT * FROM runs WHERE finished_at IS NOT NULL",
    "attempt": (
        "SELECT attempts.* FROM attempts JOIN runs ON runs.id = attempts.run_id"
        " WHERE runs.finished_at IS NOT NULL"
    ),
    "delivery": "SELECT * FROM deliveries WHERE finished_at IS NOT NULL",
    "outbox row": "SELECT id, run_id, alert_id, notice, target, idempotency_key, body FROM deliveries",
    "alert": "SELECT * FROM alerts WHERE resolved_at = told_at",
}


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database file as it was left, past every layer of ours."""
    connection = sqlite3.connect(path, timeout=30)
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    finally:
        connection.close()


class Memory:
    """Remembers every final row, and says which of those that it knows are another now, or are gone."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int] = {}

    def look(self, connection: sqlite3.Connection) -> list[str]:
        """Compare, and remember what has come to its end meanwhile."""
        now = {
            (kind, row["id"]): hash(tuple(row))
            for kind, query in _FINAL.items()
            for row in connection.execute(query)
        }
        changed = [
            f"{kind} {number} {'is gone' if (kind, number) not in now else 'was final and has changed'}"
            for (kind, number), before in self._known.items()
            if now.get((kind, number)) != before
        ]
        self._known |= now
        return changed


def faults_of(path: Path) -> list[str]:
    """Return what SQLite has to say against a file."""
    try:
        with opened(path) as connection:
            verdicts = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            dangling = [tuple(row) for row in connection.execute("PRAGMA foreign_key_check")]
    except sqlite3.DatabaseError as exc:
        return [f"{path.name} cannot be read: {exc}"]
    said = [f"integrity_check of {path.name}: {verdict}" for verdict in verdicts if verdict != "ok"]
    return said + [f"{path.name} points to a row that is not there: {row}" for row in dangling]
