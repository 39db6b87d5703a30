"""A mount namespace of a test's own: what is mounted in it nobody else sees, and it ends with the test."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_HELD = 'set -e; eval "$1"; echo mounted; exec cat'


class NotThere(Exception):
    """Nothing can be mounted here, and why."""


@dataclass(frozen=True)
class Namespace:
    """The namespace that a process holds. Whoever is in it is root there, and only there."""

    holder: int

    def inside(self, *words: str) -> list[str]:
        """Return a command that runs these words in it."""
        enter = ("nsenter", "--target", str(self.holder), "--user", "--mount", "--preserve-credentials")
        return [*enter, "--", *words]

    def do(self, *words: str) -> None:
        """Run a command in it, which must succeed."""
        subprocess.run(self.inside(*words), check=True, timeout=60)


@contextmanager
def mounting(script: str, *values: str) -> Iterator[Namespace]:
    """Hold a namespace in which a shell has run `script`, with values as $2, $3 …; raises NotThere."""
    for program in ("unshare", "nsenter", "mount"):
        if shutil.which(program) is None:
            raise NotThere(f"there is no {program} to mount with: install Debian's util-linux and mount")
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _HELD, "sh", script, *values],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            why = " ".join(holder.stderr.read().split())
            raise NotThere(f"this machine lets its users mount nothing of their own: {why}")
        try:
            yield Namespace(holder.pid)
        finally:
            holder.stdin.close()
