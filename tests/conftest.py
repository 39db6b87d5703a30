"""What all tests share: anyio's asyncio backend, and an environment without anybody's keys."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.postgres import NotThere, Server, running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let S17 and the crash harness be run for longer, and in other worlds."""
    parser.addoption("--s17-requests", type=int, default=100_000, help="how many requests S17 makes in all")
    parser.addoption("--s17-seed", type=int, default=17, help="the first of the worlds in which S17 runs")
    parser.addoption(
        "--crash-rounds", type=int, default=40, help="how often the crash harness kills a daemon"
    )
    parser.addoption("--crash-seed", type=int, default=7, help="what decides where and when it does")


@pytest.fixture
def anyio_backend() -> str:
    """Run `anyio` tests on asyncio, the loop of the daemon."""
    return "asyncio"


@pytest.fixture(autouse=True)
def no_keys_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every provider's key variable, and ours, out of the environment of each test."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_TOKEN")) or name.startswith(("OPENAI_", "PROMPTD_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Run a PostgreSQL server of the tests' own, one for each process of pytest."""
    try:
        with running() as server:
            yield server
    except NotThere as why:
        pytest.skip(str(why))
