"""What all tests share: anyio's asyncio backend, and an environment without anybody's keys."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


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
