"""What the figures were taken on: figures of another machine are another story."""

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from bench.peers import Peers

_PEERS = """
from importlib.metadata import version
print(", ".join(f"{name} {version(name)}" for name in ("litellm", "openai", "httpx", "aiohttp")))
"""
LIBRARIES = ("openai", "aiohttp", "SQLAlchemy", "APScheduler", "httpx2", "pydantic")


def described(peers: Peers) -> Iterator[tuple[str, str]]:
    """Yield what is to be known of the machine, with its value."""
    yield "machine", f"{os.cpu_count()} cores, {_processor()}, {_memory()} GB"
    yield "system", f"{platform.system()} {platform.release()}"
    yield "load when it began", f"{os.getloadavg()[0]:.2f}"
    yield "python", f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    yield "libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    if peers.python:
        said = subprocess.run([peers.python, "-c", _PEERS], stdout=subprocess.PIPE, text=True, check=True)
        yield "peers", said.stdout.strip()


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3)
