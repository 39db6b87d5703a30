"""Debian's packages for the tests, unpacked beside the virtual environment's programs: nothing is installed.

`python tests/support/debian.py postgresql prometheus` gets what is named there and not on this machine yet.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

UNPACKED = Path(sys.prefix) / "debian"
MACHINE = Path("/")
_PATIENCE = 600.0  # seconds for one command of apt's


class NotThere(Exception):
    """A package is not on this machine, and why it could not be had."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package by its short name; `program` is a file of it, as a pattern below the root.

    One that is `alone` is unpacked without what it depends on.
    """

    word: str
    name: str
    program: str
    alone: bool = False

    @property
    def directory(self) -> Path:
        """Where it is unpacked."""
        return UNPACKED / self.word

    def root(self) -> Path:
        """Return the root below which its files are: `/`, or where it is unpacked; raises NotThere."""
        for root in (MACHINE, self.directory):
            if any(root.glob(self.program)):
                return root
        raise NotThere(f"no {Path(self.program).name}: install Debian's {self.name}, or run `make debian`")


POSTGRESQL = Package("postgresql", "postgresql-15", "usr/lib/postgresql/1[5-9]/bin/postgres")
PROMETHEUS = Package("prometheus", "prometheus", "usr/bin/promtool", alone=True)  # its pages need 220 MB more
SYSTEMD_CONTAINER = Package("systemd-container", "systemd-container", "usr/bin/systemd-nspawn")
PACKAGES = {package.word: package for package in (POSTGRESQL, PROMETHEUS, SYSTEMD_CONTAINER)}


def unpack(package: Package) -> Path:
    """Unpack a package, and what it needs and this machine lacks, unless it is there; return its root.

    Needs no root but for a machine without lists of packages. Raises NotThere when it cannot be had.
    """
    try:
        return package.root()
    except NotThere:
        names = [package.name] if package.alone else _lacking(package.name)
    try:
        _extract(names, package.directory)
    except OSError as exc:
        raise NotThere(f"{package.directory} cannot be written: {exc.strerror}") from exc
    return package.root()


def _extract(names: Iterable[str], directory: Path) -> None:
    directory.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as place:
        archives, whole = Path(place, "archives"), Path(place, "whole")
        archives.mkdir()
        _apt("apt-get", "download", *names, cwd=archives)
        for archive in sorted(archives.glob("*.deb")):
            _apt("dpkg-deb", "--extract", str(archive), str(whole))
        whole.rename(directory)  # what was cut short is never taken for a package


def environment(root: Path) -> dict[str, str]:
    """Return the environment in which a program below this root finds its libraries and its likes."""
    plain = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    if root == MACHINE:
        return plain
    found = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    found += [path / "systemd" for path in found if (path / "systemd").is_dir()]
    beside = ":".join(str(root / place) for place in ("usr/bin", "usr/sbin", "bin", "sbin"))
    return {**plain, "PATH": f"{beside}:{plain['PATH']}", "LD_LIBRARY_PATH": ":".join(map(str, found))}


def _refresh_lists() -> None:
    """Get the lists of packages where a fresh machine has none; only root may. Raises NotThere."""
    try:
        _apt("apt-cache", "show", *(package.name for package in PACKAGES.values()))
    except NotThere:
        _apt("apt-get", "update")


def _lacking(name: str) -> list[str]:
    simulated = _apt("apt-get", "--simulate", "--no-install-recommends", "install", name)
    return re.findall(r"^Inst (\S+)", simulated, re.MULTILINE) or [name]


def _apt(*words: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    except FileNotFoundError as exc:
        raise NotThere(f"no {words[0]} to get Debian's packages with") from exc
    except subprocess.TimeoutExpired as exc:
        raise NotThere(f"{' '.join(words[:2])} took more than {_PATIENCE:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise NotThere(f"{' '.join(words[:2])} failed: {exc.stderr.strip()}") from exc
    return done.stdout


def prepare(packages: Iterable[Package]) -> list[str]:
    """Unpack what is not there, one beside the other; return what there is to tell."""
    wanted = [package for package in packages if not _is_there(package)]
    if not wanted:
        return []
    try:
        _refresh_lists()
    except NotThere as exc:
        return [f"{exc}; tests that need {_and(wanted)} are skipped"]
    with ThreadPoolExecutor() as threads:
        return list(threads.map(_told, wanted))


def _is_there(package: Package) -> bool:
    try:
        package.root()
    except NotThere:
        return False
    return True


def _told(package: Package) -> str:
    try:
        return f"unpacked Debian's {package.name} into {unpack(package)}"
    except NotThere as exc:
        return f"no {package.name}: {exc}; the tests that need it are skipped"


def _and(packages: Iterable[Package]) -> str:
    return " and ".join(package.name for package in packages)


if __name__ == "__main__":
    for line in prepare(PACKAGES[word] for word in sys.argv[1:] or PACKAGES):
        print(line)
