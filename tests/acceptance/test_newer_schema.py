"""A later version has migrated the database: nothing is written there until it is ours again."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support.outlasted import TAKES_NO_WRITES, TAKES_WRITES_AGAIN, configure, nothing_is_lost, said
from support.workplace import PATIENCE, Workplace, eventually

from jobs.providers.loopback_thread import ThreadedLoopback
from jobs.store.revision import REVISION

NEWER = "the database is of a newer promptd (revision 9999); start that version, or restore a backup"
COMMANDS = (("status",), ("job", "pause", "pulse"), ("start",))


@contextmanager
def of_revision(database: Path, revision: str) -> Iterator[None]:
    """Let the tables be those of another version."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)) as other:
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        yield
        other.execute("UPDATE alembic_version SET version_num = ?", (REVISION,))


def test_a_database_of_a_newer_schema_is_left_alone_until_it_is_ours_again(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    configure(workplace, primary)

    with workplace.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with of_revision(workplace.database, "9999"):
            primary.let_go()
            eventually(lambda: said(daemon, TAKES_NO_WRITES + NEWER))
            before = workplace.rows("SELECT max(id) AS newest FROM runs")
            refused = [workplace.run(*words) for words in COMMANDS]
            after = workplace.rows("SELECT max(id) AS newest FROM runs")
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(len(primary.requests) + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert before == after
    assert [(result.code, result.err) for result in refused] == [(69, f"promptd: {NEWER}\n")] * 3
    nothing_is_lost(workplace, primary)
