"""PostgreSQL as the store uses it: one writer at a time, and no wait without an end."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from support.hang_guard import LONGEST
from support.ledger import make_instance
from support.postgres import PASSWORD, Server
from support.wire import nobodys_port
from support.workplace import eventually

from jobs.errors import Unavailable
from jobs.store import migrate, postgresql
from jobs.store.engine import kind_of, open_engine
from jobs.store.revision import REVISION

UNIT = Path(__file__).parents[2] / "systemd" / "promptd.service"
COUNT = "SELECT count(*) FROM instances"
MIGRATE = """
import sys
from jobs import clock
from jobs.store import migrate
migrate.upgrade(sys.argv[1], now=clock.utcnow())
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
def name(postgres: Server, template: str) -> Iterator[str]:
    """Yield the name of a fresh database."""
    name = postgres.create(template=template)
    yield name
    postgres.drop(name)


@pytest.fixture
def url(postgres: Server, name: str) -> str:
    """Return the URL of a fresh database."""
    return postgres.url(name)


@pytest.fixture
def writing(url: str) -> Iterator[Engine]:
    """Yield the writing engine of a fresh database."""
    engine = open_engine(url, writes=True)
    yield engine
    engine.dispose()


def other(url: str, **settings: str) -> Engine:
    """Return another process's writing engine, with settings of its sessions."""
    engine = open_engine(url, writes=True)

    @event.listens_for(engine, "connect")
    def _set(connection: Any, _entry: object) -> None:
        for name, value in settings.items():
            connection.execute(f"SET {name} = '{value}'")
        connection.commit()

    return engine


def count(connection: Connection) -> int:
    """Return how many instances there are."""
    return int(connection.execute(text(COUNT)).scalar_one())


def test_who_reads_in_a_writing_transaction_has_read_what_stands(writing: Engine, url: str) -> None:
    """A second writer waits as it begins, and then sees what the first has committed: no update is lost."""
    second = other(url)

    def counted_then_written() -> int:
        with second.begin() as connection:
            seen = count(connection)
            make_instance(connection)
        return seen

    with ThreadPoolExecutor(1) as thread:
        with writing.begin() as connection:
            make_instance(connection)
            ends = thread.submit(counted_then_written)
            eventually(lambda: connection.execute(text(WAITING)).scalar_one() == 1 or None)
            assert not ends.done()
        assert ends.result(LONGEST) == 1
    second.dispose()


def test_nobody_waits_for_a_writer_without_an_end(writing: Engine, url: str) -> None:
    """The error is of the kind that is tried again."""
    second = other(url, lock_timeout="20ms")

    with writing.begin(), pytest.raises(DBAPIError) as late, second.begin():
        pass
    second.dispose()

    assert kind_of(late.value) == "locked"


def test_a_writer_that_stands_still_is_put_out(writing: Engine, url: str) -> None:
    """A stopped process does not hold up the others: the server ends its session, and its write with it."""
    stopped = other(url, idle_in_transaction_session_timeout="20ms")

    with pytest.raises(DBAPIError) as gone, stopped.begin() as connection:  # noqa: PT012 - the last one fails
        make_instance(connection)
        with writing.begin() as free:
            assert count(free) == 0
        make_instance(connection)
    stopped.dispose()

    assert kind_of(gone.value) == "unreachable"


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("setting", ["lock", "statement", "idle_in_transaction_session"])
def test_no_session_waits_for_ever(url: str, writes: bool, setting: str) -> None:
    engine = open_engine(url, writes=writes)
    with engine.connect() as connection:
        limit = connection.execute(text(f"SHOW {setting}_timeout")).scalar_one()
    engine.dispose()

    assert limit in ("10s", "25s", "30s")


def server_of(connection: Connection) -> int:
    """Return the id of the server's process for this session."""
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Stop a session's process meanwhile; its connection stays up."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def be_patient_for(connection: Connection, seconds: float) -> None:
    """Let this connection wait so long for a silent server from now on."""
    driver: Any = connection.connection.driver_connection
    driver.silent_for = seconds


@pytest.mark.parametrize("words", ["SELECT 1", "COMMIT"])
def test_a_server_that_stands_still_is_given_up(url: str, words: str) -> None:
    """Its own limits do not count then, and its machine keeps the connection up."""
    engine = open_engine(url, writes=True)

    with engine.connect() as connection:
        connection.begin()
        make_instance(connection)
        pid = server_of(connection)
        be_patient_for(connection, 0.3)
        with standing_still(pid), pytest.raises(DBAPIError) as given_up:
            connection.commit() if words == "COMMIT" else connection.execute(text(words))
    with engine.begin() as connection:
        left = count(connection)
    engine.dispose()

    assert kind_of(given_up.value) == "unreachable"
    assert "said nothing for 0.3 s" in str(given_up.value)
    assert left == (words == "COMMIT")


def test_a_session_that_stands_still_while_nothing_is_asked_is_replaced(url: str) -> None:
    engine = open_engine(url, writes=False)

    with engine.connect() as connection:
        pid = server_of(connection)
        connection.rollback()  # which is not asked of the server again then
        be_patient_for(connection, 0.3)
    with standing_still(pid), engine.connect() as connection:
        assert server_of(connection) != pid
    engine.dispose()


def test_a_statement_that_may_take_long_is_waited_for(url: str) -> None:
    """As a migration of large tables does."""
    engine = open_engine(url, writes=True)
    slow = text("SELECT pg_sleep(3.5)")

    with engine.begin() as connection:
        be_patient_for(connection, 3)
        postgresql.without_limit(connection)
        connection.execute(slow)
    engine.dispose()
    with engine.connect() as connection:
        be_patient_for(connection, 0.1)
        with pytest.raises(DBAPIError, match="said nothing"):
            connection.execute(slow)
    engine.dispose()


def test_a_silent_server_is_given_up_before_the_service_manager_gives_us_up() -> None:
    """After the server should have ended the statement itself; a new connection has 10 s on top."""
    (found,) = re.findall(r"^WatchdogSec=(\d+)$", UNIT.read_text(), re.MULTILINE)

    assert postgresql.STATEMENT_TIMEOUT_MS / 1000 < postgresql.SILENT_FOR <= int(found) / 2 - 10


def test_a_reader_sees_one_moment_and_writes_nothing(writing: Engine, url: str) -> None:
    reading = open_engine(url, writes=False)

    with reading.connect() as connection, connection.begin():
        before = count(connection)
        with writing.begin() as meanwhile:
            make_instance(meanwhile)
        assert count(connection) == before == 0
        with pytest.raises(DBAPIError) as refused:
            make_instance(connection)
    reading.dispose()

    assert kind_of(refused.value) == "readonly"


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", "full"),
        ("53200", "full"),
        ("53300", "unreachable"),
        ("25006", "readonly"),
        ("55P03", "locked"),
        ("40P01", "locked"),
        ("40001", "locked"),
        ("57014", "locked"),
        ("57P01", "unreachable"),
        ("57P03", "unreachable"),
        ("08006", "unreachable"),
        ("23505", "other"),
        ("58030", "io"),
    ],
)
def test_a_servers_trouble_is_of_the_kind_that_is_done_something_about(
    shared: Engine, state: str, kind: str
) -> None:
    raised = f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"

    with pytest.raises(DBAPIError) as trouble, shared.begin() as connection:
        connection.execute(text(raised))

    assert kind_of(trouble.value) == kind


def test_a_server_that_is_not_there_is_told_without_the_password(postgres: Server) -> None:
    with nobodys_port() as port:
        engine = open_engine(postgres.url("promptd", port=port), writes=True)
        with pytest.raises(OperationalError) as away, engine.connect():
            pass
        engine.dispose()

    assert kind_of(away.value) == "unreachable"
    assert PASSWORD not in str(away.value)


def test_a_missing_driver_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(Unavailable, match=r"pip install 'promptd\[postgres\]'"):
        open_engine("postgresql+psycopg://promptd@localhost/promptd", writes=True)


def test_what_the_url_says_goes_before_our_manners(url: str) -> None:
    engine = open_engine(f"{url}?application_name=mine&connect_timeout=3", writes=True)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW application_name")).scalar_one() == "mine"
    engine.dispose()


def test_a_nul_that_a_model_says_costs_no_answer(shared: Engine) -> None:
    """PostgreSQL has no such character."""
    with shared.begin() as connection:
        assert connection.execute(text("SELECT CAST(:said AS text)"), {"said": "a\0b"}).scalar_one() == "a�b"


def test_two_processes_that_migrate_at_once_both_find_it_done(postgres: Server) -> None:
    name = postgres.create()
    words = [sys.executable, "-c", MIGRATE, postgres.url(name)]

    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    assert [each.communicate(timeout=2 * LONGEST)[1] for each in both] == ["", ""]
    assert migrate.current(postgres.url(name)) == REVISION
    postgres.drop(name)


def test_a_transaction_that_the_server_does_not_know_is_not_called_committed(shared: Engine) -> None:
    """As after a failover to a server that lacks the newest ones."""
    with shared.begin() as connection:
        assert not postgresql.has_committed(connection, "999999999")


def test_a_server_that_is_started_anew_is_found_again(postgres: Server, writing: Engine) -> None:
    """Fast, as by `systemctl restart`: every session is ended."""
    with writing.begin() as connection:
        make_instance(connection)

    postgres.stop(signal.SIGINT)
    postgres.start()

    with writing.begin() as connection:
        assert count(connection) == 1
