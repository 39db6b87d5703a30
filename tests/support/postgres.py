"""A PostgreSQL server of the tests' own: Debian's programs, a new cluster in a directory that goes away."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

PACKAGE = "postgresql-15"
UNPACKED = Path(sys.prefix) / "postgresql"
UNPRIVILEGED = "nobody"  # the server refuses to be root's
PATIENCE = 60.0
ROLE, PASSWORD = "promptd", "pass:of/promptd"
# A test's server need not outlive the machine: but for fsync everything is as Debian has it.
SETTINGS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=60")


class NotThere(Exception):
    """There are no programs of a PostgreSQL server, and why."""


def programs() -> Path:
    """Return the directory of `initdb` and `postgres`, 15 or later; raises NotThere."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        *UNPACKED.glob("usr/lib/postgresql/*/bin/postgres"),
    ]
    versions = {int(path.parents[1].name): path.parent for path in found if path.parents[1].name.isdigit()}
    if not versions or max(versions) < 15:
        raise NotThere(f"no PostgreSQL server: install Debian's {PACKAGE}, or run `make postgresql`")
    return versions.get(15) or versions[max(versions)]


def unpack() -> None:
    """Unpack Debian's package, and what it needs and this machine lacks, where no server is installed.

    Needs no root: nothing is installed. Raises NotThere when the packages cannot be had.
    """
    simulate = ("apt-get", "--simulate", "--no-install-recommends", "install", PACKAGE)
    with tempfile.TemporaryDirectory() as packages:
        try:
            lacking = _apt(*simulate)
        except NotThere:
            _apt("apt-get", "update")  # a fresh machine has no lists of packages yet; only root may get them
            lacking = _apt(*simulate)
        names = re.findall(r"^Inst (\S+)", lacking, re.MULTILINE) or [PACKAGE]
        _apt("apt-get", "download", *names, cwd=Path(packages))
        for package in Path(packages).glob("*.deb"):
            _apt("dpkg-deb", "--extract", str(package), str(UNPACKED))


def _apt(*words: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=True)
    except FileNotFoundError as exc:
        raise NotThere(f"no PostgreSQL server, and no {words[0]} to get one") from exc
    except subprocess.CalledProcessError as exc:
        raise NotThere(f"no PostgreSQL server, and {' '.join(words[:2])} failed: {exc.stderr}") from exc
    return done.stdout


@dataclass
class Server:
    """A running server on a loopback port. Its databases are fresh, or copies of a template."""

    directory: Path
    programs: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    _made: int = field(default=0)

    @property
    def log(self) -> Path:
        """What the server has said."""
        return self.directory / "log"

    def url(self, database: str, *, port: int | None = None) -> str:
        """Return a database's URL, with the role's password in it; `port` is another way to the server."""
        word = PASSWORD.replace(":", "%3A").replace("/", "%2F")
        return f"postgresql+psycopg://{ROLE}:{word}@127.0.0.1:{port or self.port}/{database}"

    def create(self, *, template: str = "template0") -> str:
        """Make a database and return its name."""
        self._made += 1
        name = f"promptd_{self._made}"
        self.do(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, and end whoever uses it."""
        self.do(f"DROP DATABASE {name} WITH (FORCE)")

    def do(self, *statements: str) -> None:
        """Run statements as the superuser, outside of any transaction and of any database of ours."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", use_native_hstore=False)
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        give_up = time.monotonic() + PATIENCE
        while True:
            if self.process is None or self.process.poll() is not None:
                self._launch()
            try:
                return self.do("SELECT 1")
            except OperationalError as exc:
                assert time.monotonic() < give_up, self.log.read_text("utf-8", "replace")
                time.sleep(0.02 if "refused" in str(exc) else 0.1)

    def _launch(self) -> None:
        words = ["-D", str(self.directory / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                _as_nobody([str(self.programs / "postgres"), *words, *SETTINGS]),
                env=_environment(self.programs),
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends every session (fast), SIGQUIT is as a crash (immediate)."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None


@contextmanager
def running() -> Iterator[Server]:
    """Make a cluster, run its server until the block ends, remove it; raises NotThere."""
    directory = Path(tempfile.mkdtemp(prefix="promptd-postgres-"))
    try:
        server = Server(directory, _reachable(programs(), directory), _free_port())
        if os.geteuid() == 0:
            shutil.chown(directory, UNPRIVILEGED)
        _initialise(server)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(server: Server) -> None:
    secret = server.directory / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    words = [str(server.programs / "initdb"), "-D", str(server.directory / "data"), "--username", ROLE]
    words += ["--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale"]
    done = subprocess.run(
        _as_nobody([*words, "--no-sync", "--no-instructions"]),
        env=_environment(server.programs),
        cwd=server.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _as_nobody(words: Sequence[str]) -> list[str]:
    """Return the command under a user that the server accepts; it ends when the tests are killed."""
    user: list[str] = []
    if os.geteuid() == 0:
        group = pwd.getpwnam(UNPRIVILEGED).pw_gid
        user = [f"--reuid={UNPRIVILEGED}", f"--regid={group}", "--clear-groups"]
    return ["setpriv", "--pdeathsig=INT", *user, "--", *words]


def _reachable(found: Path, directory: Path) -> Path:
    """Return programs that the server's user can run: root's own checkout may be closed to it."""
    asked = subprocess.run(_as_nobody(["test", "-x", str(found / "postgres")]), check=False)
    if asked.returncode == 0:
        return found
    shutil.copytree(UNPACKED, directory / "programs", symlinks=True)
    return directory / "programs" / found.relative_to(UNPACKED)


def _environment(found: Path) -> dict[str, str]:
    root = found.parents[4]
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu*")) if root != Path("/") else ""
    path = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    return {**path, "LD_LIBRARY_PATH": libraries} if libraries else path


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    try:
        programs()
    except NotThere:
        try:
            unpack()
            print(f"unpacked Debian's {PACKAGE} into {UNPACKED}")
        except NotThere as lacking:
            print(f"{lacking}; the tests that need it are skipped")
