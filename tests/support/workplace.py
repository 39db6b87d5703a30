"""A directory with a configuration in it, and the installed `promptd` run there as a process."""

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from support import forked

T = TypeVar("T")
PROMPTD = Path(sys.executable).with_name("promptd")
PATIENCE = 60.0  # seconds: it only ends what would fail anyway
_READY = re.compile(r"figures on port (\d+)")


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return standard output as JSON."""
        return json.loads(self.out)


@dataclass
class DaemonProcess:
    """A `promptd start` that is ready. `port` serves its figures; `log` holds what it wrote."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int

    def get(self, path: str) -> tuple[int, str]:
        """Ask the daemon over HTTP; return status and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, within: float = PATIENCE) -> int:
        """Ask it to end and return its exit code."""
        self.signal()
        return self.process.wait(within)


@dataclass
class Workplace:
    """One configuration with its state, its environment and the commands run on it."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "promptd.yaml"

    @property
    def database(self) -> Path:
        """The database file."""
        return self.directory / "state" / "promptd.db"

    def configure(self, text: str) -> None:
        """Write promptd.yaml; state stays in this directory and figures are on a free port."""
        head = ""
        if "state_dir:" not in text:
            head += "state_dir: state\n"
        if "server:" not in text:
            head += 'server: {listen: "127.0.0.1:0"}\n'
        self.config.write_text(head + text)

    def environment(self) -> dict[str, str]:
        """Return the environment that processes get: no keys but the test's own."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        return {**kept, "HOME": str(self.directory), "PYTHONWARNINGS": "default", **self.environ}

    def run(self, *words: str, stdin: str | None = None, timeout: float = 180) -> Result:
        """Run a command to its end: forked where that is the same, for a start takes half a second of CPU."""
        words, environ = (str(PROMPTD), "--config", str(self.config), *words), self.environment()
        if forked.can_fork(environ):
            done = forked.run(words, cwd=self.directory, env=environ, input=stdin, timeout=timeout)
        else:
            done = subprocess.run(
                words,
                cwd=self.directory,
                env=environ,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        return Result(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str) -> Any:
        """Run a reading command with --json and return what it printed; it must succeed."""
        result = self.run(*words, "--json")
        assert result.code == 0, (words, result)
        return result.json()

    def log_in(
        self, *, refresh_token: str, access_token: str = "opaque-access", expires_in: int | None = None
    ) -> None:
        """Give openai-codex a login through `auth import codex`; `expires_in` seconds, None for ever."""
        token = (
            access_token
            if expires_in is None
            else jwt({"exp": int(time.time()) + expires_in, "n": access_token})
        )
        login = {
            "tokens": {
                "id_token": jwt({"aud": ["client-of-the-tool"]}),
                "access_token": token,
                "refresh_token": refresh_token,
                "account_id": "acct-1",
            }
        }
        path = self.directory / "auth.json"
        path.write_text(json.dumps(login))
        result = self.run("auth", "import", "codex", "--file", str(path))
        assert result.code == 0, result

    @contextmanager
    def daemon(self, *command: str) -> Iterator[DaemonProcess]:
        """Run `promptd start` until the block ends; it is ready when the block begins.

        `command` replaces the installed command, for a daemon with an injected fault.
        """
        log = self.directory / f"daemon-{time.monotonic_ns()}.log"
        words = command or (str(PROMPTD), "--config", str(self.config), "start")
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, cwd=self.directory, env=self.environment(), stdout=out, stderr=subprocess.STDOUT
            )
        try:
            yield DaemonProcess(process, log, _port_of(process, log))
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(PATIENCE)

    def finished_runs(
        self, number: int = 1, *, job: str | None = None, within: float = PATIENCE
    ) -> list[Any]:
        """Wait until that many runs have ended that were not skipped or missed; return them, oldest first.

        Waits by looking into the file: a command costs half a second of a core each time it is asked.
        """
        self.wait_finished(number, job=job, within=within)
        words = ("run", "list", "--limit", "1000", *(("--job", job) if job else ()))
        runs = [r for r in self.json(*words) if r["finished_at"] and r["state"] not in ("skipped", "missed")]
        return list(reversed(runs))

    def _ended(self, job: str | None = None) -> list[str]:
        """Return the jobs of the runs that have ended and were not skipped or missed."""
        try:
            rows = self.rows(
                "SELECT job FROM runs WHERE finished_at IS NOT NULL AND state NOT IN ('skipped', 'missed')"
            )
        except sqlite3.OperationalError:  # there is no database yet, or no table in it
            return []
        return [row["job"] for row in rows if job in (None, row["job"])]

    def ran(self, *words: str) -> Any:
        """Run `job run NAME` or `ask PROMPT` and return the run with its attempts, however it ended."""
        result = self.run(*words, "--json")
        assert result.code in (0, 1), (words, result)
        return result.json()

    def first_runs(self, *jobs: str, within: float = PATIENCE) -> dict[str, Any]:
        """Wait until each job's first run has ended; return them by job, with their attempts."""
        self.wait_first_runs(*jobs, within=within)
        runs = self.json("run", "list", "--limit", "1000")
        firsts = {r["job"]: r for r in runs if r["state"] not in ("skipped", "missed")}
        with ThreadPoolExecutor(2) as two:
            shown = two.map(lambda job: self.shown(firsts[job]["id"]), jobs)
            return dict(zip(jobs, shown, strict=True))

    def wait_first_runs(self, *jobs: str, within: float = PATIENCE) -> None:
        """Wait until each job's first run has ended. To show one beside a daemon takes it a process."""
        eventually(lambda: set(jobs) <= set(self._ended()), within=within)

    def wait_finished(self, number: int = 1, *, job: str | None = None, within: float = PATIENCE) -> None:
        """Wait until that many runs have ended that were not skipped or missed."""
        eventually(lambda: len(self._ended(job)) >= number, within=within)

    def shown(self, run_id: int) -> Any:
        """Return `run show --json` of a run."""
        return self.json("run", "show", str(run_id))

    def credential(self, provider: str, label: str | None = None) -> Any:
        """Return the credential's own row of `auth list --json`."""
        rows = [
            row
            for row in self.json("auth", "list")
            if row["provider"] == provider and row["scope"] == "credential" and label in (None, row["label"])
        ]
        assert len(rows) == 1, rows
        return rows[0]

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read the database file itself, past every layer of ours."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=PATIENCE) as connection:
            connection.row_factory = sqlite3.Row
            found = [dict(row) for row in connection.execute(query, values)]
        connection.close()
        return found


def jwt(claims: Mapping[str, Any]) -> str:
    """Return an unsigned JSON web token."""
    parts = ({"alg": "none"}, claims)
    body = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts)
    return f"{body}.c2ln"


def eventually(ask: Callable[[], T | None], *, within: float = PATIENCE) -> T:
    """Ask again and again until there is an answer, which an empty list is not; fail with the time else."""
    give_up = time.monotonic() + within
    while True:
        answer = ask()
        if answer is not None and answer is not False and answer != []:
            return answer
        assert time.monotonic() < give_up, f"nothing within {within} s"
        time.sleep(0.05)


def _port_of(process: "subprocess.Popen[bytes]", log: Path) -> int:
    def ready() -> int | None:
        text = log.read_text("utf-8", "replace")
        assert process.poll() is None, f"the daemon ended with {process.returncode}:\n{text}"
        found = _READY.search(text)
        return int(found[1]) if found else None

    return eventually(ready)
