"""A PostgreSQL server of the tests' own: Debian's programs, a new cluster in a directory that goes away."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from support.debian import POSTGRESQL, environment
from support.wire import free_port

UNPRIVILEGED = "nobody"  # the server refuses to be root's
PATIENCE = 60.0
ROLE, PASSWORD = "promptd", "pass:of/promptd"
# A test's server need not outlive the machine: but for fsync everything is as Debian has it.
SETTINGS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=60")


def programs() -> Path:
    """Return the directory of `initdb` and `postgres`, 15 or later; raises NotThere."""
    found = POSTGRESQL.root().glob(POSTGRESQL.program)
    versions = {int(path.parents[1].name): path.parent for path in found}
    return versions.get(15) or versions[max(versions)]


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
                env=environment(_root(self.programs)),
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
        server = Server(directory, _reachable(programs(), directory), free_port())
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
        env=environment(_root(server.programs)),
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
    shutil.copytree(_root(found), directory / "programs", symlinks=True)
    return directory / "programs" / found.relative_to(_root(found))


def _root(found: Path) -> Path:
    """Return the root that the programs are below, as Debian lays its packages out."""
    return found.parents[4]
