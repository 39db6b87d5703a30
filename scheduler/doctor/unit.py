"""The systemd unit as the manager knows it, and the daemon as it answers over HTTP."""

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from scheduler.config.settings import Listen
from scheduler.doctor.finding import Finding

BOOTED = Path("/run/systemd/system")
WITHIN = 5.0
ANSWERS_WITHIN = 2.0
_ASKED = (
    *("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "FragmentPath"),
    *("ExecStart", "WatchdogUSec", "NeedDaemonReload", "ExecMainStatus"),
)
_PATH = re.compile(r"path=(.*?) ;")
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def properties(unit: str) -> Mapping[str, str] | None:
    """Return what systemd says of a unit (systemctl(1), `show`); None where there is no systemd to ask."""
    if not BOOTED.is_dir():
        return None
    words = ["systemctl", "show", unit, "--no-pager", f"--property={','.join(_ASKED)}"]
    try:
        said = subprocess.run(  # noqa: S603 - the words are ours
            words,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.partition("=") for line in said.splitlines())
    return {name: value for name, _, value in pairs}


def unit(name: str, said: Mapping[str, str] | None, *, answers: bool) -> Iterator[Finding]:
    """Judge a unit. `answers`: a daemon answers on the control socket, whoever has started it."""
    if said is None:
        yield Finding.unknown("unit", "there is no systemd to be asked")
        return
    if said.get("LoadState") != "loaded":
        state = said.get("LoadState", "unknown")
        yield Finding.unknown("unit", f"{name} is {state}; systemd/README.md says how it is installed")
        return
    yield from _as_written(name, said)
    yield _at_work(name, said, answers=answers)


def _as_written(name: str, said: Mapping[str, str]) -> Iterator[Finding]:
    program = _PATH.search(said.get("ExecStart", ""))
    if program and not os.access(program[1], os.X_OK):
        mend = "install promptd there again, or correct ExecStart"
        yield Finding.fault("unit", f"{name} starts {program[1]}, which cannot be run", mend)
    if said.get("NeedDaemonReload") == "yes":
        mend = "run `systemctl daemon-reload`, then restart the unit"
        yield Finding.warning(
            "unit", f"{said.get('FragmentPath') or name} has changed since it was read", mend
        )
    if said.get("WatchdogUSec", "") in ("", "0", "infinity"):
        mend = "set WatchdogSec=, as in systemd/promptd.service"
        yield Finding.warning("unit", f"nobody watches {name}: a daemon that hangs is not restarted", mend)
    if said.get("UnitFileState") == "disabled":
        mend = f"run `systemctl enable {name}`"
        yield Finding.warning("unit", f"{name} is not started at the next boot", mend)


def _at_work(name: str, said: Mapping[str, str], *, answers: bool) -> Finding:
    active, sub = said.get("ActiveState", "unknown"), said.get("SubState", "")
    if active == "failed":
        status = said.get("ExecMainStatus", "")
        mend = f"see `journalctl -u {name} -n 50`; 78 is the configuration: `promptd check`"
        return Finding.fault("unit", f"{name} has failed ({said.get('Result')}, exit status {status})", mend)
    if active == "active" and not answers:
        mend = "ask as root, or as one of its group; else see `journalctl -u " + name + " -n 50`"
        return Finding.warning("unit", f"{name} is active, and does not answer here", mend)
    return Finding.ok("unit", f"{name} is {active} ({sub})")


def answers(listen: Listen | None) -> Iterator[Finding]:
    """Judge what a running daemon answers over HTTP."""
    if listen is None:
        yield Finding.unknown("http", "server.listen is off")
        return
    if listen.port == 0:
        yield Finding.unknown("http", "server.listen takes any free port, so it cannot be asked")
        return
    host = _ANYWHERE.get(listen.host, listen.host)
    origin = f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"
    for path in ("/healthz", "/readyz"):
        yield _answer(origin, path)


def _answer(origin: str, path: str) -> Finding:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{origin}{path}", timeout=ANSWERS_WITHIN) as answer:
            answer.read(10_000)
    except urllib.error.HTTPError as exc:
        said = exc.read(10_000).decode("utf-8", "replace")
        mend = "see the daemon's log; a hung one is restarted with `systemctl restart promptd`"
        return Finding.fault("http", f"{origin}{path} says {exc.code}: {said}", mend)
    except OSError as exc:
        mend = "see the daemon's log, and whether a firewall or a namespace is in between"
        return Finding.warning("http", f"{origin}{path} does not answer: {exc}", mend)
    return Finding.ok("http", f"{origin}{path} says 200")
