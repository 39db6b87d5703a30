"""The database is locked, or cannot be written: said, waited for, and nothing lost."""

import resource
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.outlasted import TAKES_NO_WRITES, TAKES_WRITES_AGAIN, configure, nothing_is_lost, said
from support.workplace import PATIENCE, Workplace, eventually

from jobs.providers.loopback_thread import ThreadedLoopback


@pytest.fixture
def configured(workplace: Workplace, primary: ThreadedLoopback) -> Workplace:
    configure(workplace, primary)
    return workplace


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the writers' lock, as another program's long transaction does."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=PATIENCE)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def quota(process: int, size: int) -> Iterator[None]:
    """Let a process's files grow no further: a write beyond that fails as on a read-only file system."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, before[1]))
    yield
    resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@contextmanager
def service_manager(workplace: Workplace) -> Iterator[socket.socket]:
    """Stand where systemd listens (sd_notify(3))."""
    address = str(workplace.directory / "notify")
    workplace.environ["NOTIFY_SOCKET"] = address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address)
        told.settimeout(PATIENCE)
        yield told


def test_a_database_that_is_locked_is_waited_for(configured: Workplace, primary: ThreadedLoopback) -> None:
    with configured.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with locked(configured.database):
            refused = configured.run("job", "pause", "pulse")
            primary.let_go()
            eventually(lambda: said(daemon, TAKES_NO_WRITES + "database is locked"))
            alive = daemon.get("/healthz")[0]
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(2, within=PATIENCE)
        assert daemon.stop() == 0

    assert refused.code == 75
    assert "database is locked" in refused.err
    assert alive == 200
    nothing_is_lost(configured, primary)


def test_a_database_that_cannot_be_written_is_waited_for_and_the_service_manager_is_told(
    configured: Workplace, primary: ThreadedLoopback
) -> None:
    """The watchdog is fed meanwhile: a daemon that is killed now loses the answers that wait in it."""
    with service_manager(configured) as told, configured.daemon() as daemon:
        primary.wait_received(1, within=PATIENCE)
        with quota(daemon.process.pid, configured.database.with_name("promptd.db-wal").stat().st_size):
            primary.let_go()
            eventually(lambda: said(daemon, TAKES_NO_WRITES + "disk I/O error"))
            eventually(lambda: primary.in_flight == 0)
            ready = daemon.get("/readyz")
            while b"STATUS=The database takes no writes: disk I/O error" not in told.recv(4096):
                pass
            while told.recv(4096) != b"WATCHDOG=1":
                pass
            asked = len(primary.requests)
        eventually(lambda: said(daemon, TAKES_WRITES_AGAIN))
        primary.wait_received(asked + 1, within=PATIENCE)
        assert daemon.stop() == 0

    assert asked == 1
    assert (ready[0], '"writing":false' in ready[1]) == (503, True)
    nothing_is_lost(configured, primary)
