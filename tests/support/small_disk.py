"""A disk of a few megabytes that can be filled, freed and made read-only, and a workplace that is on it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.namespace import Namespace, mounting
from support.workplace import PROMPTD, Result, Workplace

_MOUNT = 'mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$3"'
_FILL = 'cat /dev/zero > "$1"'
_READ = """
import json, sqlite3, sys
with sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True) as connection:
    connection.row_factory = sqlite3.Row
    print(json.dumps([dict(row) for row in connection.execute(sys.argv[2], sys.argv[3:])]))
"""


@dataclass(frozen=True)
class SmallDisk:
    """A disk mounted at `directory`, for those who are in the namespace."""

    directory: Path
    namespace: Namespace

    def fill(self) -> None:
        """Leave no room on it."""
        words = self.namespace.inside("sh", "-c", _FILL, "sh", str(self._ballast))
        filled = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "No space left" in filled.stderr, filled

    def free(self) -> None:
        """Give back what `fill` has taken."""
        self.namespace.do("rm", str(self._ballast))

    def remount(self, how: str) -> None:
        """Make it read-only (`ro`), while nobody writes on it, or writable again (`rw`)."""
        self.namespace.do("mount", "-o", f"remount,{how}", str(self.directory))

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"


@contextmanager
def mounted(directory: Path, *, size: str) -> Iterator[SmallDisk]:
    """Mount an empty disk at a directory while the block runs; raises `namespace.NotThere`."""
    directory.mkdir(exist_ok=True)
    with mounting(_MOUNT, size, str(directory)) as namespace:
        yield SmallDisk(directory, namespace)


@dataclass
class EnclosedWorkplace(Workplace):
    """A workplace whose commands run in a namespace, and whose database is read there."""

    namespace: Namespace | None = None

    def command(self, *words: str) -> list[str]:
        """Return `promptd` with these words, as it is run here."""
        assert self.namespace is not None
        return self.namespace.inside(str(PROMPTD), "--config", str(self.config), *words)

    def run(self, *words: str, stdin: str | None = None, timeout: float = 60) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read the database file itself."""
        assert self.namespace is not None
        words = (sys.executable, "-I", "-S", "-c", _READ, str(self.database), query, *map(str, values))
        read = subprocess.run(self.namespace.inside(*words), capture_output=True, text=True, check=True)
        found: list[dict[str, Any]] = json.loads(read.stdout)
        return found
