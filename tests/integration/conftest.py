"""What integration tests share: a database file with every table in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine
from support.ledger import make_database


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Yield the writing engine of a fresh database."""
    engine = make_database(tmp_path / "promptd.db")
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> Iterator[Connection]:
    """Yield a connection inside a transaction."""
    with engine.begin() as connection:
        yield connection
