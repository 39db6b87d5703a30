"""Who may read and change the files that hold what nobody else may know: databases and keys."""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from jobs.errors import ConfigError, Fault

OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
KEPT_BESIDE = ("-wal", "-shm", "-journal")
"""The ends of the files that SQLite keeps beside a database (sqlite.org/tempfiles.html)."""


def wrong_with_file(facts: os.stat_result, *, trusted: Collection[int]) -> tuple[str, str] | None:
    """Return what is wrong with a private file, and the command that mends it without the file's name.

    Of a file with an access control list the bits of the group are its mask: no entry gives more than they do
    (acl(5)).
    """
    mode = stat.S_IMODE(facts.st_mode)
    if mode & OF_OTHERS:
        may = "read and changed" if mode & (stat.S_IWGRP | stat.S_IWOTH) else "read"
        return f"can be {may} by others (mode {mode:04o})", "chmod 600"
    if facts.st_uid not in trusted:
        return f"belongs to another user (uid {facts.st_uid})", f"chown {os.geteuid()}"
    return None


def wrong_with_directory(facts: os.stat_result, *, trusted: Collection[int]) -> tuple[str, str] | None:
    """Return what is wrong with the directory of private files, and the command that mends it.

    Its group may write, and so replace what is in it: whoever lets it do so trusts it, and `doctor` warns.
    """
    mode = stat.S_IMODE(facts.st_mode)
    if mode & stat.S_IWOTH:
        mend = "" if mode & stat.S_ISVTX else "chmod o-w"  # /tmp is meant to be so
        return f"is a directory in which everybody may put files (mode {mode:04o})", mend
    if facts.st_uid not in trusted:
        return f"is a directory of another user (uid {facts.st_uid})", f"chown {os.geteuid()}"
    return None


def faults_of_file(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with a file that must be private; one that is not there, or not seen, is right."""
    facts = _facts(path)
    if facts is not None and (wrong := wrong_with_file(facts, trusted=_trusted(path.parent))):
        yield _fault(path, *wrong)


def faults_of_directory(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with the directory of private files itself."""
    facts = _facts(path)
    if facts is not None and (wrong := wrong_with_directory(facts, trusted=_trusted(path))):
        yield _fault(path, *wrong)


def faults_above(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with the directories above that of private files, for `doctor` to warn of.

    Whoever starts here may have no way to mend it: a volume of Kubernetes (emptyDir) is for everybody.
    """
    above = (*path.absolute().parents, *Path(os.path.realpath(path)).parents)
    for each in dict.fromkeys(above):
        facts = _facts(each)
        if facts is not None and (wrong := wrong_above(facts)):
            yield _fault(each, *wrong)


def wrong_above(facts: os.stat_result) -> tuple[str, str] | None:
    """Return what is wrong with a directory above that of private files, and the command that mends it.

    Where everybody may rename what is in it (unlink(2): no sticky bit), they can put another in its place.
    """
    mode = stat.S_IMODE(facts.st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return (
            f"is a directory in which everybody may replace what is below it (mode {mode:04o})",
            "chmod o-w",
        )
    return None


def faults_of_database(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with a SQLite file, those beside it, and its directory; a link has its own, too."""
    yield from _faults_around(path)
    real = real_file(path)
    for end in ("", *KEPT_BESIDE):
        yield from faults_of_file(real.with_name(f"{real.name}{end}"))


def real_file(path: Path) -> Path:
    """Return the file that a link leads to, beside which SQLite keeps the others; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _faults_around(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with a file's directory, and for a link with that of the file it leads to."""
    directories = dict.fromkeys((path.parent, real_file(path).parent))
    yield from dict.fromkeys(fault for each in directories for fault in faults_of_directory(each))


def require_private_database(path: Path) -> None:
    """Raise ConfigError while others may read or change a SQLite file."""
    if faults := list(faults_of_database(path)):
        raise ConfigError(faults)


def require_private_key(path: Path) -> None:
    """Raise ConfigError while others may read or change a key, or its directory."""
    if faults := [*_faults_around(path), *faults_of_file(real_file(path))]:
        raise ConfigError(faults)


def _trusted(directory: Path) -> frozenset[int]:
    """Return the users whose files are used: this one, root, and for root the user of the state directory.

    So a root shell acts on the files of a service with a user of its own.
    """
    own = os.geteuid()
    facts = _facts(directory) if own == 0 else None
    return frozenset({0, own} | ({facts.st_uid} if facts is not None else set()))


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _fault(path: Path, wrong: str, mend: str) -> Fault:
    advice = f"run `{mend} {path}`" if mend else "use a directory of your own"
    return Fault(path, 0, 0, "", wrong, advice)
