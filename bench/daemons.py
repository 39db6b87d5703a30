"""The installed `promptd start` as a process: how soon it is ready, what it weighs, what it serves."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

PROMPTD = str(Path(sys.executable).with_name("promptd"))
PATIENCE = 60.0
HEAD = """
state_dir: state
server: {{listen: "127.0.0.1:{port}"}}
model:
  {{provider: custom, name: nobody, base_url: "http://127.0.0.1:9/v1", model: small, api_key: no-key}}
jobs:
"""
JOB = '  - {{name: job-{number}, schedule: "{minute} {hour} * * mon-fri", prompt: "Say something."}}\n'


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configure(directory: Path, *, jobs: int) -> int:
    """Write a configuration of so many jobs, each due on weekdays; return the port of its figures."""
    port = free_port()
    lines = (JOB.format(number=n, minute=n % 60, hour=n // 60 % 24) for n in range(jobs))
    (directory / "promptd.yaml").write_text(HEAD.format(port=port) + "".join(lines))
    return port


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon that is ready: what it took, in seconds, and what it weighs, in bytes."""

    pid: int
    seconds: float
    resident: int
    most_resident: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A daemon that was started, and where it tells that it is ready."""

    process: "subprocess.Popen[bytes]"
    notify: socket.socket
    began: float

    def wait_until_ready(self) -> float:
        """Return how many seconds it took until it was ready."""
        while b"READY=1" not in self.notify.recv(4096):
            pass
        return time.perf_counter() - self.began


@contextmanager
def launched(directory: Path) -> Iterator[Launch]:
    """Run the daemon until the block ends; what it tells its service manager can be heard."""
    address = directory / "notify"
    environ = {**os.environ, "NOTIFY_SOCKET": str(address)}
    command = [PROMPTD, "--config", str(directory / "promptd.yaml"), "start"]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        (directory / "daemon.log").open("wb") as log,
    ):
        notify.bind(str(address))
        notify.settimeout(PATIENCE)
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=directory, env=environ, stdout=log, stderr=log)
        try:
            yield Launch(process, notify, began)
        finally:
            process.terminate()
            process.wait(PATIENCE)
            address.unlink()


@contextmanager
def started(directory: Path) -> Iterator[Started]:
    """Run the daemon until the block ends; it is ready when the block begins."""
    with launched(directory) as launch:
        took, pid = launch.wait_until_ready(), launch.process.pid
        yield Started(pid, took, _status(pid, "VmRSS"), _status(pid, "VmHWM"))


def scrape(port: int) -> float:
    """Ask for the figures once; return how many seconds it took."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    began = time.perf_counter()
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    connection.close()
    assert answer.status == 200, body
    return took


def _status(pid: int, name: str) -> int:
    """Return a size from proc(5), in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert found, name
    return int(found[1]) * 1024
