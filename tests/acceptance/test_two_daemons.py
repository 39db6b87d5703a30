"""Two daemons on one database, a file or a server's: each instant is run once, whoever of them lives."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from support.postgres import Server
from support.workplace import DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

SECOND = timedelta(seconds=1)
CONFIG = """
state_dir: {state}
database: {database}
secret_key: file:{key}
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
"""
JOB = """
  - name: {name}
    schedule: every 1s
    prompt: "{{{{ job }}}} {{{{ scheduled_for }}}}"
    model: {{provider: custom, base_url: "{url}", model: {name}, api_key: no-key-required}}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database that is not migrated yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared/promptd.db"
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def ledger(url: str) -> Iterator[Engine]:
    """Yield a plain engine on the database, past every layer of ours."""
    engine = create_engine(url)
    yield engine
    engine.dispose()


def places(tmp_path: Path, url: str, provider: ThreadedLoopback, *jobs: str) -> list[Workplace]:
    """Return two workplaces that share jobs, a database and the key of its secrets, and nothing else."""
    key = tmp_path / "secret.key"
    key.write_text("a secret of both daemons, long enough")
    made = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        head = CONFIG.format(state=directory, database=url, key=key, url=provider.base_url)
        made.append(Workplace(directory))
        made[-1].configure(head + "".join(JOB.format(name=job, url=provider.base_url) for job in jobs))
    return made


def rows(ledger: Engine, query: str, **values: object) -> list[dict[str, Any]]:
    """Return what a query finds."""
    with ledger.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), values).mappings()]


def at(value: object) -> datetime:
    """Return a moment as the database gives it: SQLite's are text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def instants_of(row: dict[str, Any]) -> list[datetime]:
    """Return every instant that a row accounts for."""
    last, first = at(row["scheduled_for"]), at(row["span_first"] or row["scheduled_for"])
    return [first + number * SECOND for number in range(round((last - first) / SECOND) + 1)]


def audit(ledger: Engine, provider: ThreadedLoopback) -> None:
    """Hold the ledger against itself and against what the provider received."""
    runs = rows(ledger, "SELECT * FROM runs ORDER BY id")
    for job in {row["job"] for row in runs}:
        found = sorted(instant for row in runs if row["job"] == job for instant in instants_of(row))
        assert found == [found[0] + number * SECOND for number in range(len(found))], f"{job}: a gap, or two"
    received = Counter(each.prompt for each in provider.received())
    asked = Counter(row["prompt"] for row in runs if row["tries"] > 0)
    assert received == asked
    assert set(received.values()) == {1}
    assert len(rows(ledger, "SELECT id FROM attempts")) == asked.total()


def owners(ledger: Engine, where: str) -> set[int]:
    """Return the process ids of those who have such runs."""
    query = "SELECT DISTINCT pid FROM runs JOIN instances ON instances.id = instance_id WHERE "
    return {row["pid"] for row in rows(ledger, query + where)}


def test_each_instant_is_run_once_and_what_a_killed_daemon_left_is_settled_by_the_other(
    tmp_path: Path, url: str, ledger: Engine, primary: ThreadedLoopback
) -> None:
    """Both begin on an empty database at once, both win instants, and the one that lives goes on."""
    primary.script(Endpoint.CHAT, Reply.text("fine"))
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("fine"), model="mute")
    with ExitStack() as stack:
        both = both_daemons(stack, places(tmp_path, url, primary, "alpha", "beta", "mute"))
        eventually(lambda: owners(ledger, "state = 'succeeded'") == both.keys() or None, within=300)
        (killed,) = eventually(lambda: owners(ledger, "job = 'mute' AND state = 'running'") or None)
        primary.wait_received(1)

        eventually(lambda: killed_with_one_run(both[killed], ledger))
        (left,) = eventually(lambda: rows(ledger, "SELECT * FROM runs WHERE state = 'abandoned'") or None)
        again = f"runs.id > {left['id']} AND job = 'mute' AND state = 'succeeded'"
        (lives,) = eventually(lambda: owners(ledger, again) or None)
        code = both[lives].stop()

    assert code == 0
    assert (left["job"], left["reason"]) == ("mute", "process_gone")
    assert owners(ledger, again) == both.keys() - {killed}
    assert rows(ledger, "SELECT id FROM runs WHERE finished_at IS NULL") == []
    unknown = rows(ledger, "SELECT run_id FROM attempts WHERE outcome <> 'succeeded'")
    assert unknown == [{"run_id": left["id"]}]
    audit(ledger, primary)


def killed_with_one_run(daemon: DaemonProcess, ledger: Engine) -> bool:
    """Kill a daemon, unless more than one of its runs is under way or waits: then let it go on."""
    pid = daemon.process.pid
    daemon.signal(signal.SIGSTOP)
    query = "SELECT runs.id FROM runs JOIN instances ON instances.id = instance_id WHERE pid = :pid"
    is_alone = len(rows(ledger, f"{query} AND runs.finished_at IS NULL", pid=pid)) == 1
    daemon.signal(signal.SIGKILL if is_alone else signal.SIGCONT)
    if is_alone:
        daemon.process.wait()
    return is_alone


def both_daemons(stack: ExitStack, two: list[Workplace]) -> dict[int, DaemonProcess]:
    """Start two daemons at once, and return them by process id when both are ready."""
    with ThreadPoolExecutor(2) as threads:
        started = list(threads.map(lambda place: stack.enter_context(place.daemon()), two))
    return {daemon.process.pid: daemon for daemon in started}


def test_a_daemon_outlasts_a_server_that_goes_away_and_comes_back(
    tmp_path: Path, postgres: Server, primary: ThreadedLoopback
) -> None:
    """What was paid for meanwhile is kept, and no instant is without a row."""
    name = postgres.create()
    engine = create_engine(postgres.url(name))
    primary.script(Endpoint.CHAT, Reply.text("paid for").held(), Reply.text("fine"))
    place, _ = places(tmp_path, postgres.url(name), primary, "alpha")
    with place.daemon() as daemon:
        primary.wait_received(1)
        postgres.stop(signal.SIGQUIT)
        primary.let_go()
        eventually(lambda: "write failed" in daemon.log.read_text() or None)
        postgres.start()
        paid = "(SELECT finished_at FROM runs WHERE output = 'paid for')"
        ended = f"state = 'succeeded' AND runs.started_at > {paid}"
        eventually(lambda: owners(engine, ended) or None)
        assert daemon.get("/metrics")[0] == 200
        code = daemon.stop()

    assert code == 0
    assert len(rows(engine, "SELECT id FROM runs WHERE output = 'paid for'")) == 1
    audit(engine, primary)
    engine.dispose()
    postgres.drop(name)
