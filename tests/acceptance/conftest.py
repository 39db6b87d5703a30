"""Fixtures of acceptance tests: a workplace of its own, and scripted providers on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.helped import SUMMARY, Place
from support.workplace import Workplace

from jobs.providers.loopback_replies import Endpoint, Reply
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


@pytest.fixture
def helper() -> Iterator[ThreadedLoopback]:
    """A provider of auxiliary work only."""
    with ThreadedLoopback() as server:
        yield server


@pytest.fixture
def place(
    workplace: Workplace, primary: ThreadedLoopback, backup: ThreadedLoopback, helper: ThreadedLoopback
) -> Place:
    """Where a job gathers more than its model takes; the helper compresses whatever it gets."""
    helper.script(Endpoint.CHAT, Reply.text(SUMMARY))
    return Place(workplace, primary, backup, helper)
