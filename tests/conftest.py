"""What all tests share: anyio's asyncio backend, and an environment without anybody's keys."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import forked
from support.debian import NotThere
from support.postgres import Server, running

# The files that take longest, the longest first: what begins last is waited for by all.
LONGEST = (
    *("soak", "systemd", "documented_install", "stopped_process", "crash", "hold", "secrets", "attribution"),
    *("explain_agrees", "answer_schema", "claims", "schedule_walk", "planner_walk", "hostile_answers"),
)
_PLACES = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; workers take them in this order, each a file at a time."""
    items.sort(key=lambda item: _PLACES.get(item.path.name, len(_PLACES)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let S17, the crash harness and the soak be run for longer, and in other worlds."""
    parser.addoption("--s17-requests", type=int, default=100_000, help="how many requests S17 makes in all")
    parser.addoption("--s17-seed", type=int, default=17, help="the first of the worlds in which S17 runs")
    parser.addoption(
        "--crash-rounds", type=int, default=40, help="how often the crash harness kills a daemon"
    )
    parser.addoption("--soak-seconds", type=float, default=90, help="how long the soak lets daemons live")
    parser.addoption("--installed", action="store_true", help="start each command anew, and fork none")
    parser.addoption("--crash-seed", type=int, default=7, help="what decides where and when it does")


def pytest_configure(config: pytest.Config) -> None:
    """Say it to whoever starts commands: here, and in the workers."""
    if config.getoption("--installed"):
        os.environ[forked.FORBIDS] = "yes"


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
