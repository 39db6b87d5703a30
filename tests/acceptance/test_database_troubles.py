"""The database is locked, cannot be written, or is of another schema: said, waited for, and nothing lost."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from support.accounts import PROMPT, asked_once_each, each_has_one
from support.namespace import NotThere
from support.small_disk import EnclosedWorkplace, mounted
from support.workplace import PATIENCE, DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback
from jobs.store.revision import REVISION

SECOND = timedelta(seconds=1)
TAKES_NO_WRITES = "the database takes no writes: "
TAKES_WRITES_AGAIN = "the database takes writes again, after"
CONFIG = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: pulse, schedule: every 1s, prompt: "{prompt}"}}
"""


@pytest.fixture
def configured(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    workplace.configure(CONFIG.format(url=primary.base_url, prompt=PROMPT))
    primary.script(Endpoint.CHAT, Reply.text("worth keeping").after(1), Reply.text("back again"))
    return workplace


def said(daemon: DaemonProcess, words: str) -> bool:
    return words in daemon.log.read_text("utf-8")


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the writers' lock, as another program's long transaction does."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def quota(process: int, size: int) -> Iterator[None]:
    """Let a process's files grow no further: a write beyond that fails as with a used-up quota."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@contextmanager
def of_revision(database: Path, revision: str) -> Iterator[None]:
    """Let the tables be those of another version."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)) as other:
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        yield
        other.execute("UPDATE alembic_version SET version_num = ?", (REVISION,))


def nothing_is_lost(workplace: Workplace, provider: ThreadedLoopback) -> None:
    """The answer of the trouble's time is there, every instant has its row, and nothing was asked twice."""
    first = workplace.rows("SELECT state, output, tries FROM runs ORDER BY id LIMIT 1")
    assert first == [{"state": "succeeded", "output": "worth keeping", "tries": 1}]
    assert {row["outcome"] for row in workplace.rows("SELECT outcome FROM attempts")} == {"succeeded"}
    each_has_one(workplace, "pulse", SECOND)
    asked_once_each(provider, workplace)
    assert workplace.run("audit").code == 0


def test_a_database_that_is_locked_is_waited_for(configured: Workplace, primary: ThreadedLoopback) -> None:
    with configured.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with locked(configured.database):
            refused = configured.run("job", "pause", "pulse")
            eventually(lambda: said(daemon, TAKES_NO_WRITES + "database is locked"))
            alive = daemon.get("/healthz")[0]
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(2, within=PATIENCE)
        assert daemon.stop() == 0

    assert refused.code == 75
    assert "database is locked" in refused.err
    assert alive == 200
    nothing_is_lost(configured, primary)


def test_a_database_that_cannot_be_written_is_waited_for(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    with configured.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with quota(daemon.process.pid, configured.database.with_name("promptd.db-wal").stat().st_size):
            eventually(lambda: said(daemon, TAKES_NO_WRITES + "disk I/O error"))
            eventually(lambda: primary.in_flight == 0)
            ready = daemon.get("/readyz")
            asked = len(primary.requests)
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(asked + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert asked == 1
    assert (ready[0], '"writing":false' in ready[1]) == (503, True)
    nothing_is_lost(configured, primary)


def test_a_database_of_a_newer_schema_is_left_alone_until_it_is_ours_again(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    newer = "the database is of a newer promptd (revision 9999); start that version, or restore a backup"

    with configured.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with of_revision(configured.database, "9999"):
            eventually(lambda: said(daemon, TAKES_NO_WRITES + newer))
            before = configured.rows("SELECT max(id) AS newest FROM runs")
            refused = [
                configured.run(*words) for words in (("status",), ("job", "pause", "pulse"), ("start",))
            ]
            after = configured.rows("SELECT max(id) AS newest FROM runs")
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(len(primary.requests) + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert before == after
    assert [(result.code, result.err) for result in refused] == [(69, f"promptd: {newer}\n")] * 3
    nothing_is_lost(configured, primary)


def test_a_read_only_database_is_said_at_the_start_and_by_commands(
    tmp_path: Path, primary: ThreadedLoopback
) -> None:
    try:
        with mounted(tmp_path / "state", size="8m") as disk:
            place = EnclosedWorkplace(tmp_path, namespace=disk.namespace)
            place.configure(CONFIG.format(url=primary.base_url, prompt=PROMPT))
            assert place.run("db", "upgrade").code == 0
            disk.remount("ro")
            refused = [place.run("start"), place.run("job", "pause", "pulse")]
            disk.remount("rw")
            with place.daemon(*place.command("start")) as daemon:
                stopped = daemon.stop()
    except NotThere as why:
        pytest.skip(str(why))

    assert [result.code for result in refused] == [69, 69]
    assert all("Read-only file system" in result.err for result in refused), refused
    assert stopped == 0
