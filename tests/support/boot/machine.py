"""A Debian with systemd as its first process, booted on an overlay of this machine's own root.

Whatever is done in it ends with it: what it writes lies in memory, its network is a loopback of its own, and
its processes live in a namespace that is killed whole, also where the tests are killed.
"""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.debian import SYSTEMD_CONTAINER, NotThere, environment
from support.workplace import PATIENCE, Result, eventually

INIT = Path("/lib/systemd/systemd")
BOOTS_WITHIN = 180.0
LONGEST = 300.0  # seconds for one command of a machine, however slow
_TARGET = "[Unit]\\nRequires=basic.target\\nAfter=basic.target\\n"
# In a mount and a process namespace: $1 an empty directory, $2 a name for a control group, then what boots.
# What the machine would start by itself (other services, timers that look for updates) stays away.
_BOOT = f"""
set -e
place=$1 group=/sys/fs/cgroup/$2
shift 2
mount -t tmpfs -o mode=0755 tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
units=$place/root/etc/systemd/system
mkdir -p "$units"
ln -sf /dev/null "$units/timers.target"
printf '{_TARGET}' > "$units/booted.target"
rm -f "$place/root/etc/machine-id"
touch "$place/root/etc/machine-id"
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$group"
echo 0 > "$group/cgroup.procs"
exec "$@"
"""
# Where nothing could be mounted, or no group was made, there is nothing to tidy.
_TIDY = """
mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 0
test ! -d "/sys/fs/cgroup/$1" || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""
# SQLite follows the links of a path by itself, and /proc/PID/root would lead it to our own root. One process
# of the machine reads for all who ask: starting one costs more than the work of many looks.
_READER = """
import json, sqlite3, sys
from contextlib import closing
for line in sys.stdin:
    path, query, values = json.loads(line)
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            said = [dict(row) for row in connection.execute(query, values)]
    except sqlite3.Error as exc:
        said = str(exc)
    print(json.dumps(said), flush=True)
"""
_NSPAWN = (
    *("--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe"),
    *("--timezone=off", "--resolv-conf=off", "--link-journal=no"),
)
_PLAIN = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
}


@dataclass
class Machine:
    """A booted machine. `leader` is its first process as this machine numbers it; `environ` its shells'."""

    leader: int
    environ: dict[str, str] = field(default_factory=dict)
    _reader: "subprocess.Popen[str] | None" = None

    def path(self, inside: str) -> Path:
        """Return a file of the machine as it is reached from here; absolute links in it are not followed."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def put(self, inside: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file, with the directories above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def words(self, *words: str) -> list[str]:
        """Return a command as it is run by root in the machine."""
        given = [f"{name}={value}" for name, value in {**_PLAIN, **self.environ}.items()]
        enter = ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*enter, "--root", "--wd", "--", "env", "--ignore-environment", *given, *words]

    def run(self, *words: str, stdin: str | None = None, timeout: float = LONGEST) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            self.words(*words), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def do(self, *words: str, stdin: str | None = None, timeout: float = LONGEST) -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*words, stdin=stdin, timeout=timeout)
        assert done.code == 0, (words, done)
        return done.out

    @contextmanager
    def open(self, *words: str) -> Iterator[None]:
        """Run a command beside the block: it prints a line as it has begun, and ends when its input does."""
        with subprocess.Popen(
            self.words(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline(), words
            try:
                yield
            finally:
                process.stdin.close()
                process.wait(PATIENCE)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return what systemd says of a unit."""
        said = self.do("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in said.splitlines())

    def rows(self, database: str, query: str, *values: object) -> list[dict[str, Any]]:
        """Read a database of the machine, past every layer of ours."""
        if self._reader is None:
            words = self.words("python3", "-I", "-S", "-c", _READER)
            self._reader = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._reader.stdin is not None
        assert self._reader.stdout is not None
        self._reader.stdin.write(f"{json.dumps([database, query, values])}\n")
        self._reader.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._reader.stdout.readline())
        assert isinstance(found, list), (query, found)
        return found

    def close(self) -> None:
        """Let nobody read any more."""
        if self._reader is not None:
            self._reader.communicate(timeout=PATIENCE)


@contextmanager
def booted(place: Path, *, shows: Mapping[Path, str], environ: Mapping[str, str]) -> Iterator[Machine]:
    """Boot a machine while the block runs; raises NotThere where none can be.

    `place` is an empty directory. `shows` are directories of ours and where they are to be read in the
    machine, `environ` what its shells have in theirs.
    """
    programs = _programs()
    group, log = f"promptd-test-{secrets.token_hex(6)}", place.with_suffix(".log")
    shown = (f"--bind-ro={ours}:{inside}" for ours, inside in shows.items())
    nspawn = (str(programs / "usr/bin/systemd-nspawn"), f"--directory={place / 'root'}", *_NSPAWN, *shown)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig=KILL", "--"),
                *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL", "--"),
                *("sh", "-c", _BOOT, "sh", str(place), group),
                *(*nspawn, f"--machine={group}", "systemd.unit=booted.target"),
            ],
            env={**environment(programs), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        machine = Machine(_leader(process, log), dict(environ))
        eventually(lambda: machine.path("/run/systemd/private").exists(), within=BOOTS_WITHIN)
        stands = machine.run("systemctl", "is-system-running", "--wait")
        assert stands.out.strip() in ("running", "degraded"), stands
        try:
            yield machine
        finally:
            machine.close()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        eventually(lambda: _tidied(group))


def _programs() -> Path:
    if os.geteuid() != 0:
        raise NotThere("only root can boot a machine of its own")
    if not INIT.exists():
        raise NotThere(f"this machine has no {INIT} to boot another one with: install Debian's systemd")
    return SYSTEMD_CONTAINER.root()


def _leader(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Wait for the machine's first process; raises NotThere when there will be none, with the reason."""

    def found() -> int | None:
        if process.poll() is not None:
            said = " ".join(log.read_text("utf-8", "replace").split())[-500:]
            raise NotThere(f"no machine can be booted on this one: {said}")
        nspawn = [each for child in _children(process.pid) for each in _children(child)]
        return next((pid for pid in nspawn if _is_first(pid)), None)

    return eventually(found, within=BOOTS_WITHIN)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has just ended
        return []


def _is_first(pid: int) -> bool:
    """Whether it is systemd already, and the first of a namespace below the one that we have made."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    facts = dict(line.split(":", 1) for line in lines)
    numbers = facts["NSpid"].split()
    return len(numbers) >= 3 and numbers[-1] == "1" and facts["Name"].strip() == "systemd"


def _tidied(group: str) -> bool:
    words = ["sh", "-c", 'unshare --mount true || exit 0; exec unshare --mount -- sh -c "$@"', "sh", _TIDY]
    return subprocess.run([*words, "sh", group], capture_output=True, check=False).returncode == 0
