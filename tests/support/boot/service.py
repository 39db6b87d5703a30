"""promptd as a service of a booted machine: installed from its wheel, with the unit that lies in it."""

import json
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.boot import wheelhouse
from support.boot.machine import LONGEST, Machine, booted
from support.debian import NotThere
from support.workplace import PATIENCE, Result, eventually

WHEELS = "/srv/wheels"
PACKAGED = "/opt/promptd/share/promptd/systemd"
UNITS = "/etc/systemd/system"
WITHOUT_A_NETWORK = {
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": WHEELS,
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
SITE_PACKAGES = "/srv/site-packages"
_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
sys.stdin.read()
"""
_QUICK = "[Service]\nRestartSec=200ms\n"


@dataclass
class Service:
    """One unit of promptd; others than the first are the same unit with names of their own."""

    machine: Machine
    name: str = "promptd"
    installed_at: float = 0.0

    @property
    def database(self) -> str:
        """Where its database lies in the machine, no link in it."""
        return f"/var/lib/private/{self.name}/promptd.db"

    def install(self) -> None:
        """Put the packaged unit in its place, restarted sooner than an operator has it."""
        unit = self.machine.path(f"{PACKAGED}/promptd.service").read_text()
        for word in ("/etc/{}/", "StateDirectory={}\n", "RuntimeDirectory={}\n"):
            assert word.format("promptd") in unit
            unit = unit.replace(word.format("promptd"), word.format(self.name))
        self.machine.put(f"{UNITS}/{self.name}.service", unit)
        self.drop_in("quick", _QUICK)
        self.installed_at = time.time()

    def drop_in(self, name: str, text: str) -> None:
        """Change the unit, as `systemctl edit` does; it takes effect as it starts."""
        self.machine.put(f"{UNITS}/{self.name}.service.d/{name}.conf", text)
        self.machine.do("systemctl", "daemon-reload")

    def give(self, name: str, secret: str) -> None:
        """Let it have a secret as a credential, from a file that only root can read."""
        place = f"/etc/{self.name}/secrets/{name}"
        self.machine.put(place, secret, mode=0o600)
        self.drop_in(f"credential-{name}", f"[Service]\nLoadCredential={name}:{place}\n")

    def configure(self, text: str) -> None:
        """Write its promptd.yaml."""
        text = text if "server:" in text else f'server: {{listen: "off"}}\n{text}'
        self.machine.put(f"/etc/{self.name}/promptd.yaml", f"state_dir: /var/lib/{self.name}\n{text}")

    def systemctl(self, verb: str, *words: str, timeout: float = LONGEST) -> Result:
        """Run `systemctl` on the unit."""
        return self.machine.run("systemctl", verb, *words, self.name, timeout=timeout)

    def start(self) -> None:
        """Start it, and return when systemd calls it started."""
        started = self.systemctl("start")
        assert started.code == 0, (started, self.journal())

    def shown(self, name: str) -> str:
        """Return a property of the unit."""
        return self.machine.properties(self.name, name)[name]

    @property
    def pid(self) -> int:
        """The daemon's process, as this machine numbers it; 0 where there is none."""
        inside = int(self.shown("MainPID"))
        return _numbered(inside, self.machine.leader) if inside else 0

    def open_files(self) -> list[str]:
        """Return what the daemon's process has open."""
        listed = self.machine.run("sh", "-c", f"readlink /proc/{self.shown('MainPID')}/fd/*")
        return listed.out.splitlines()

    def promptd(self, *words: str, stdin: str | None = None) -> Result:
        """Run a command from a root shell of the machine."""
        config = f"/etc/{self.name}/promptd.yaml"
        return self.machine.run("/opt/promptd/bin/promptd", "--config", config, *words, stdin=stdin)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read its database file itself."""
        return self.machine.rows(self.database, query, *values)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the database's write lock, as another program's long transaction does."""
        with self.machine.open("python3", "-c", _LOCK, self.database):
            yield

    def ended(self, number: int = 1, *, job: str = "pulse", within: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until so many runs of a job have ended that were begun; return them, oldest first."""
        query = "SELECT * FROM runs WHERE job = ? AND started_at > 0 AND finished_at > 0 ORDER BY id"

        def enough() -> list[dict[str, Any]] | None:
            found = self.rows(query, job)
            return found if len(found) >= number else None

        return eventually(enough, within=within)

    def journal(self, *words: str) -> str:
        """Return what the machine's journal has of the unit since it was installed."""
        return self.machine.do(
            "journalctl", "--no-pager", f"--since=@{self.installed_at:.6f}", "--unit", self.name, *words
        )

    def story(self, run_id: int) -> list[dict[str, str]]:
        """Wait until the journal tells of a run's end, as the ledger does before; return what it says."""

        def whole() -> list[dict[str, str]] | None:
            found = self.journal("--output=json", f"PROMPTD_RUN_ID={run_id}")
            lines = [json.loads(line) for line in found.splitlines()]
            return lines if any("run finished" in line["MESSAGE"] for line in lines) else None

        return eventually(whole)

    def remove(self) -> None:
        """Stop it, and leave nothing of it."""
        self.systemctl("kill", "--signal=KILL", "--kill-whom=all")
        self.systemctl("stop")
        self.systemctl("reset-failed")
        gone = (f"/etc/{self.name}", f"/var/lib/private/{self.name}", f"/var/lib/{self.name}")
        unit = f"{UNITS}/{self.name}.service"
        self.machine.do("rm", "-rf", *gone, unit, f"{unit}.d")


def _numbered(inside: int, leader: int) -> int:
    """Return the process that a machine numbers so, as this one numbers it."""
    namespace = Path(f"/proc/{leader}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() != namespace:
                continue
            lines = (process / "status").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        if next(line for line in lines if line.startswith("NSpid:")).split()[-1] == str(inside):
            return int(process.name)
    raise AssertionError(f"no process {inside} in the machine")


@contextmanager
def machine_with_wheels(directory: Path) -> Iterator[tuple[Machine, str]]:
    """Boot a machine whose apt and pip wait for no network; give it with the wheel. Raises NotThere."""
    with _machine_with_ours(directory) as (machine, wheel):
        machine.put("/etc/apt/apt.conf.d/99-without-a-network", 'Acquire::Retries "0";\n')
        wheelhouse.stock(wheel, "postgres")
        yield machine, f"{WHEELS}/{wheel.name}"


@contextmanager
def machine_with_promptd(directory: Path) -> Iterator[Machine]:
    """Boot a machine in which the wheel is installed; raises NotThere where none can be booted.

    What the wheel needs is not installed there once more: the machine reads it where it is installed here.
    """
    with _machine_with_ours(directory) as (machine, wheel):
        machine.do("python3", "-m", "venv", "--without-pip", "/opt/promptd")
        minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
        machine.put(f"/opt/promptd/lib/{minor}/site-packages/installed-here.pth", f"{SITE_PACKAGES}\n")
        pip = ("/opt/promptd/bin/python", "-m", "pip", "install", "--compile")
        machine.do(*pip, "--no-deps", "--ignore-installed", f"{WHEELS}/{wheel.name}")
        yield machine


@contextmanager
def _machine_with_ours(directory: Path) -> Iterator[tuple[Machine, Path]]:
    """Boot a machine with the Python of these tests, that can read our wheel and what is installed here."""
    wheels, place = directory / "wheels", directory / "machine"
    for each in (wheels, place):
        each.mkdir()
    shows = {wheels: WHEELS, Path(sysconfig.get_path("purelib")): SITE_PACKAGES}
    with booted(place, shows=shows, environ=WITHOUT_A_NETWORK) as machine:
        _same_python(machine)
        yield machine, wheelhouse.build(wheels)


def _same_python(machine: Machine) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    said = machine.run("python3", "-c", "import sys, venv; print(*sys.version_info[:2], sep='.')").out.strip()
    if said != ours:
        raise NotThere(
            f"the wheels here are for Python {ours}, and the machine's own is {said or 'not there'}"
        )
