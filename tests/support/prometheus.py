"""Debian's Prometheus and its promtool, as programs of the tests' own."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.debian import PROMETHEUS, environment
from support.wire import free_port

PATIENCE = 60.0


def promtool(*words: str | Path, cwd: Path | None = None, stdin: str | None = None) -> str:
    """Run promtool and return what it says; a failure fails the test with its words. Raises NotThere."""
    root = PROMETHEUS.root()
    done = subprocess.run(
        [root / "usr/bin/promtool", *words],
        cwd=cwd,
        env=environment(root),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@dataclass
class Prometheus:
    """A running server on a loopback port."""

    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API and return the data; what it refuses fails the test."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=60
            ) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as refused:
            told = json.load(refused)
        assert told["status"] == "success", (parameters, told)
        assert not told.get("warnings"), (parameters, told)
        return told["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression is worth now: label sets with their values."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def is_ready(self) -> bool:
        """Say whether it answers."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running(directory: Path, config: Mapping[str, Any]) -> Iterator[Prometheus]:
    """Run a server with this configuration until the block ends; raises NotThere."""
    root = PROMETHEUS.root()
    file, log, port = directory / "prometheus.yml", directory / "prometheus.log", free_port()
    file.write_text(yaml.safe_dump(dict(config)))
    words = [f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}", "--log.level=info"]
    words += [f"--web.listen-address=127.0.0.1:{port}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", root / "usr/bin/prometheus", *words],
            cwd=directory,
            env={**environment(root), "GOMAXPROCS": "1", "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Prometheus(port, log, process)
    try:
        give_up = time.monotonic() + PATIENCE
        while not server.is_ready():
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
