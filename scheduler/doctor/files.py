"""Who may read and change what: state directory, database, keys, control socket, backups, configuration."""

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.credential import SecretReference
from jobs.errors import Fault, SecretDelayed, SecretUnreadable
from jobs.providers.secret_files import SecretFiles
from jobs.secret import is_placeholder
from jobs.store import file_modes
from scheduler.doctor.finding import Finding

MOST_BACKUPS = 10
_HANDED_OVER = (Path("/run/secrets"), Path("/var/run/secrets"), Path("/run/credentials"))
_OF_STRANGERS = stat.S_IRWXO
_BY_REFERENCE = (
    "keep them elsewhere: write env:NAME, file:PATH, or for a unit with LoadCredential= systemd:NAME "
    "(a unit with DynamicUser= cannot read a file that is not for everybody)"
)


def state_directory(path: Path) -> Iterator[Finding]:
    """Judge the directory that holds database, key and socket."""
    name = "state directory"
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        yield Finding.unknown(name, f"{path} is not there yet; `promptd start` makes it")
        return
    except OSError as exc:
        yield Finding.fault(name, f"{path}: {exc.strerror}", "name another state_dir, or ask as its owner")
        return
    if not stat.S_ISDIR(mode):
        yield Finding.fault(name, f"{path} is no directory", "name another state_dir, or move the file away")
        return
    for fault in file_modes.faults_above(path):
        yield Finding.warning(name, f"{fault.file} {fault.wrong}", fault.mend)
    if faults := list(file_modes.faults_of_directory(path)):
        yield from _told(name, faults)
    elif mode & stat.S_IWGRP:
        yield _of_the_group(name, path, mode, "database and secret key")
    elif mode & file_modes.OF_OTHERS:
        seen = f"{path}: others can look into it (mode {stat.S_IMODE(mode):04o})"
        yield Finding.warning(name, seen, f"run `chmod 700 {path}`")
    else:
        yield Finding.ok(name, f"{path} is its owner's alone")


def _of_the_group(name: str, path: Path, mode: int, what: str) -> Finding:
    seen = f"{path}: its group may replace {what} (mode {stat.S_IMODE(mode):04o})"
    return Finding.warning(name, seen, f"run `chmod 700 {path}`, unless you trust its group as its owner")


def database(path: Path, state_dir: Path | None = None) -> Iterator[Finding]:
    """Judge a SQLite file, the files beside it, and its directory where that is not the state directory."""
    if not path.exists():
        yield Finding.unknown("database files", f"{path} is not there yet; `promptd start` makes it")
        return
    faults = list(file_modes.faults_of_database(path))
    yield from _told("database files", faults)
    for each in dict.fromkeys((path.parent, file_modes.real_file(path).parent)):
        mode = each.stat().st_mode
        if mode & stat.S_IWGRP and (state_dir is None or not each.samefile(state_dir)):
            yield _of_the_group("database files", each, mode, "the database")
    if not faults:
        yield Finding.ok("database files", f"{path} is its owner's alone")


def key(
    reference: SecretReference, state_dir: Path, *, secret_files: SecretFiles, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Judge the file of a secret_key; one that is kept elsewhere may have whatever mode its keeper wants.

    Nothing is looked at on a disk that gives no answer.
    """
    if reference.scheme != "file":
        return
    path = Path(reference.name)
    try:
        secret_files.read(path)
    except SecretDelayed as exc:
        yield Finding.unknown("secret key", f"{path}: {exc}")
        return
    except (OSError, SecretUnreadable):  # told with the other secrets
        pass
    if not path.exists():
        yield Finding.unknown("secret key", f"{path} is not there yet; `promptd start` makes its own")
        return
    faults = list(file_modes.faults_of_file(path))
    if not faults:
        yield Finding.ok("secret key", f"{path} is its owner's alone")
    elif path.parent == state_dir:
        yield from _told("secret key", faults)
    elif is_handed_over(path, environ):
        yield Finding.ok("secret key", f"{path} is what this service was handed")
    else:
        for fault in faults:
            yield Finding.warning("secret key", f"{fault.file} {fault.wrong}", fault.mend)


def secrets_for_everybody(
    named: Iterable[Path], *, files: SecretFiles, environ: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    """Yield each file of a secret that everybody may read, and what to say of it; it is used all the same.

    Not one that a container or the service manager has put where none but the service comes. One that cannot
    be read, or whose disk gives no answer, is told with the secrets.
    """
    for file in named:
        with suppress(OSError, ValueError, SecretUnreadable):
            if not is_handed_over(file, environ) and files.read(file).mode & stat.S_IROTH:
                mend = f"unless that is meant, run `chmod o-r {file}`"
                yield file, f"names a secret that everybody may read; {mend}"


def is_handed_over(file: Path, environ: Mapping[str, str]) -> bool:
    """Say whether a secret lies where Docker, Kubernetes or systemd puts those of a service.

    Docker and Kubernetes write them for everybody, in the container's own name space (docs.docker.com,
    "Manage sensitive data with Docker secrets"); systemd in a directory for the unit (systemd.exec(5)).
    """
    own = environ.get("CREDENTIALS_DIRECTORY")
    return any(place in file.parents for place in (*_HANDED_OVER, *([Path(own)] if own else ())))


def socket(path: Path) -> Iterator[Finding]:
    """Judge who may ask the daemon: whoever may write to its socket steers it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & _OF_STRANGERS:
        mend = f"run `chmod o= {path}`, and restart the daemon"
        yield Finding.fault("control socket", f"{path}: everybody may ask the daemon (mode {mode:04o})", mend)
    else:
        yield Finding.ok("control socket", f"{path} is for its owner and group")


def backups(path: Path) -> Iterator[Finding]:
    """Judge what upgrades and restores have left beside a SQLite file."""
    found = sorted(
        each
        for base in dict.fromkeys((path, file_modes.real_file(path)))
        for pattern in (f"{base.name}.*.bak", f"{base.name}.replaced.*")
        for each in base.parent.glob(pattern)
        if not each.name.endswith(file_modes.KEPT_BESIDE)
    )
    faults = [fault for each in found for fault in file_modes.faults_of_file(each)]
    yield from _told("backups", faults)
    size = sum(each.stat().st_size for each in found)
    seen = f"{len(found)} beside the database, {size / 1_000_000:.1f} MB"
    if len(found) > MOST_BACKUPS:
        yield Finding.warning("backups", seen, f"remove old ones: {path.parent}/{path.name}.*.bak")
    elif not faults:
        yield Finding.ok("backups", seen)


def configuration(files: Sequence[Path], keys: Sequence[SecretReference]) -> Iterator[Finding]:
    """Judge who may read the providers' keys that stand in the configuration itself.

    Its URLs and header values are judged as it is read: what seems to be a secret is one of its warnings.
    """
    name = "configuration files"
    written = [each for each in keys if each.scheme == "literal" and not is_placeholder(each.name.strip())]
    if not written:
        yield Finding.ok(name, "no provider's key stands in them")
        return
    loose = [path for path in files if path.exists() and path.stat().st_mode & stat.S_IROTH]
    for path in loose:
        seen = f"{path} can be read by everybody, and so can the providers' keys in it: {len(written)} in all"
        yield Finding.warning(name, seen, _BY_REFERENCE)
    if not loose:
        yield Finding.ok(name, f"providers' keys stand in them, for few to read: {len(written)}")


def _told(name: str, faults: Sequence[Fault]) -> Iterator[Finding]:
    for fault in faults:
        yield Finding.fault(name, f"{fault.file} {fault.wrong}", fault.mend)
