"""What integration tests share: a database with every table in it, of either kind."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine
from support.ledger import NOW, url_of
from support.postgres import Server

from jobs.store import migrate
from jobs.store.engine import open_engine

DATABASES = ("sqlite", "postgresql")
AUTHORITY = Path(__file__).parents[1] / "fixtures" / "nobodys-authority.pem"


@pytest.fixture(autouse=True)
def one_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust one authority, of which nobody has the key: to read those of the system takes a client 25 ms."""
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))


@pytest.fixture(params=DATABASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Return what kind of database the test runs on: each test runs on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def template(postgres: Server) -> str:
    """Return the name of a migrated database, which is copied."""
    name = postgres.create()
    migrate.upgrade(postgres.url(name), now=NOW)
    return name


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated database file, which is copied."""
    path = tmp_path_factory.mktemp("migrated") / "promptd.db"
    migrate.upgrade(url_of(path), now=NOW)
    return path


@pytest.fixture(scope="session")
def shared(postgres: Server, template: str) -> Iterator[Engine]:
    """Yield the writing engine of a PostgreSQL database to which nothing is ever committed."""
    engine = open_engine(postgres.url(postgres.create(template=template)), writes=True)
    yield engine
    engine.dispose()


@pytest.fixture
def empty_database(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a database with nothing in it."""
    if kind == "sqlite":
        yield url_of(tmp_path / "promptd.db")
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a fresh database."""
    if kind == "sqlite":
        yield url_of(shutil.copy(request.getfixturevalue("migrated"), tmp_path / "promptd.db"))
        return
    server: Server = request.getfixturevalue("postgres")
    name = server.create(template=request.getfixturevalue("template"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """Yield the writing engine of a fresh database."""
    engine = open_engine(database, writes=True)
    yield engine
    engine.dispose()


@pytest.fixture
def db(kind: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Yield a connection inside a transaction, which ends with the test."""
    engine: Engine = request.getfixturevalue("engine" if kind == "sqlite" else "shared")
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        if transaction.is_active:
            transaction.rollback()
