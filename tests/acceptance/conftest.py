"""Fixtures of acceptance tests: a workplace of its own, and scripted providers on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.workplace import Workplace

from jobs.providers.loopback_thread import ThreadedLoopback


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A directory of its own."""
    return Workplace(tmp_path)


@pytest.fixture
def primary() -> Iterator[ThreadedLoopback]:
    """A scripted provider, asked first."""
    with ThreadedLoopback() as server:
        yield server


@pytest.fixture
def backup() -> Iterator[ThreadedLoopback]:
    """Another one, asked when the first fails."""
    with ThreadedLoopback() as server:
        yield server
