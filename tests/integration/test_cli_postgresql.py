"""The command line on PostgreSQL: the same answers, no password in any of them, and trouble in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import PASSWORD, Server
from support.wire import nobodys_port
from test_cli_ground import CONFIG, World

from jobs.errors import ErrorClass
from jobs.store.attempts import Failure

READING = [
    ("status",),
    ("run", "list"),
    ("run", "show", "1"),
    ("auth", "list"),
    ("auth", "why", "zai"),
    ("job", "list"),
    ("job", "next", "-n", "1"),
    ("provider", "list"),
    ("explain", "digest"),
    ("db", "current"),
    ("config", "show"),
]


@pytest.fixture
def url(postgres: Server, template: str) -> Iterator[str]:
    """Yield the URL of a fresh database."""
    name = postgres.create(template=template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def closed() -> Iterator[int]:
    """Yield a port on which nobody listens."""
    with nobodys_port() as port:
        yield port


def config_of(url: str) -> str:
    """Return a configuration with this database."""
    return f"database: {url}\n{CONFIG}"


def test_the_same_commands_answer(tmp_path: Path, url: str) -> None:
    """After a login that died, a key at its limit, and an answer."""
    world = World(tmp_path, config=config_of(url))
    with world.ledger() as connection:
        world.see_jobs(connection)
        world.log_in(connection)
        run = world.begin(connection)
        world.refuse_refresh(connection, run)
        world.fail(connection, run, Failure(ErrorClass.RATE_LIMIT, "zai/1302", "too many requests"))
        world.succeed(connection, run, number=2, answer="the news")

    for words in READING:
        said = world.run(*words)
        assert said.code == 0, (words, said)
        assert PASSWORD not in said.out + said.err
        assert PASSWORD.replace(":", "%3A").replace("/", "%2F") not in said.out + said.err
    assert "the news" in world.run("run", "show", "1").out
    assert "login is dead" in world.run("auth", "list").err
    assert world.run("auth", "reset", "openai-codex").code == 0
    assert "login is dead" not in world.run("auth", "list").err


def test_a_server_that_is_away_is_one_line_and_exit_69(tmp_path: Path, postgres: Server, closed: int) -> None:
    world = World(tmp_path, config=config_of(postgres.url("promptd", port=closed)), migrated=False)

    for words in (
        ("run", "list"),
        ("db", "current"),
        ("db", "upgrade"),
        ("auth", "reset", "zai"),
        ("start",),
    ):
        said = world.run(*words)
        assert (said.code, said.out, said.err.count("\n")) == (69, "", 1), words
        assert "Connection refused" in said.err
        assert "check that its server runs" in said.err
        assert "file and disk" not in said.err


def test_a_wrong_password_is_not_told(tmp_path: Path, url: str) -> None:
    world = World(tmp_path, config=config_of(url.replace("@", "and-more@")), migrated=False)

    said = world.run("run", "list")

    assert (said.code, said.err.count("\n")) == (69, 1)
    assert "password authentication failed" in said.err
    assert "and-more" not in said.err


def test_a_missing_driver_is_one_line_and_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is an extra."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    world = World(
        tmp_path, config=config_of("postgresql+psycopg://promptd@localhost/promptd"), migrated=False
    )

    for words in (("run", "list"), ("db", "upgrade"), ("start",)):
        said = world.run(*words)
        assert (said.code, said.err.count("\n")) == (69, 1), words
        assert "pip install 'promptd[postgres]'" in said.err
