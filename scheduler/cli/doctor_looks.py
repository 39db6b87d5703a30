"""Every look of `promptd doctor`, in order: those of the process that works, and those of any shell."""

import os
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import import_module, metadata
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from jobs import clock
from jobs.credential import SecretReference
from jobs.errors import PromptdError, Unavailable
from jobs.store.engine import sqlite_path
from scheduler.cli import remote
from scheduler.cli.check import unusable_secrets
from scheduler.cli.context import Context
from scheduler.config.paths import find
from scheduler.config.settings import Settings
from scheduler.control_protocol import sockets
from scheduler.doctor import files, ledger, surroundings, times, unit
from scheduler.doctor.finding import Finding

_MOUNTS = Path("/proc/self/mountinfo")
_DISTRIBUTION = "promptd"


@dataclass
class Looks:
    """What is looked at: a configuration, None where it has faults, in the environment of this process."""

    context: Context
    settings: Settings | None
    now: datetime

    @cached_property
    def state_dir(self) -> Path | None:
        """The state directory, read without judging the rest where that has faults."""
        if self.settings is not None:
            return self.settings.state_dir
        try:
            return remote.state_dir_of(find(self.context.config, self.context.environ), self.context.environ)
        except PromptdError:
            return None

    @property
    def database(self) -> Path | None:
        """The SQLite file, None for a server's database."""
        return sqlite_path(self.settings.database) if self.settings is not None else None

    @property
    def runs_at_once(self) -> int:
        """How many runs may be at work."""
        return self.settings.limits.max_concurrent_runs if self.settings is not None else 1


def looks_inside(looks: Looks) -> Iterator[Finding]:
    """Yield what is found of all that the working process has around it."""
    for name, look in _INSIDE.items():
        yield from _looked(name, look, looks)


def looks_outside(settings: Settings | None, *, unit: str, answers: bool) -> Iterator[Finding]:
    """Yield what any shell can see. `answers`: a daemon answers."""
    now = clock.utcnow()
    yield times.clock(now, times.synchronised())
    yield times.zone_data(times.system_zone_data(_zone_directories()), _zone_package())
    if settings is not None:
        yield from times.zones(_zones_of(settings))
    yield from _unit(unit, answers=answers)
    if settings is not None and answers:
        yield from _unit_answers(settings)


def _looked(name: str, look: Callable[[Looks], Iterator[Finding]], looks: Looks) -> Iterator[Finding]:
    try:
        yield from look(looks)
    except (PromptdError, SQLAlchemyError, sqlite3.Error) as exc:
        said = getattr(exc, "orig", None) or exc
        mend = "check the path, its owner and its disk; on a server, that it runs, and its URL"
        yield Finding.fault(name, f"cannot be used: {' '.join(str(said).split())}", mend)
    except OSError as exc:
        yield Finding.unknown(name, f"cannot be seen: {exc.strerror or exc}")


def _python(looks: Looks) -> Iterator[Finding]:
    yield Finding.ok("python", f"{sys.version.split()[0]}, {sys.executable}")
    yield surroundings.sqlite(sqlite3.sqlite_version_info)
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        required = []
    yield from surroundings.libraries(required, _installed)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield surroundings.descriptors(
        sys.maxsize if soft == resource.RLIM_INFINITY else soft, looks.runs_at_once
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _network(looks: Looks) -> Iterator[Finding]:
    yield from surroundings.proxies(looks.context.environ)
    yield from surroundings.certificates(looks.context.environ)


def _files(looks: Looks) -> Iterator[Finding]:
    if looks.state_dir is None:
        yield Finding.unknown("state directory", "the configuration does not say where it is")
        return
    yield from files.state_directory(looks.state_dir)
    config = find(looks.context.config, looks.context.environ)
    for path in sockets(looks.state_dir, config, looks.context.environ):
        if path.exists():
            yield from files.socket(path)
            break
    if looks.settings is not None:
        for reference in looks.settings.secret_keys:
            reader, environ = looks.context.secret_files, looks.context.environ
            yield from files.key(reference, looks.state_dir, secret_files=reader, environ=environ)
    if looks.database is not None:
        yield from files.database(looks.database, looks.state_dir)
        yield from files.backups(looks.database)


def _written_keys(looks: Looks) -> Iterator[Finding]:
    if looks.settings is None:
        return
    yield from files.configuration(_files_of(looks.context), list(_keys(looks.settings)))


def _files_of(context: Context) -> list[Path]:
    loaded = context.loaded
    return sorted({loaded.document.file, *(each.document.file for each in loaded.written)})


def _keys(settings: Settings) -> Iterator[SecretReference]:
    for provider in settings.registry:
        yield from (each.reference for each in provider.credentials if each.reference is not None)


def _disk(looks: Looks) -> Iterator[Finding]:
    if looks.database is None or not looks.database.parent.is_dir():
        return
    yield ledger.file_system(looks.database.resolve(), _MOUNTS.read_text("utf-8"))
    yield from ledger.room(looks.database)


def _database(looks: Looks) -> Iterator[Finding]:
    if looks.settings is None:
        yield Finding.unknown("database", "the configuration does not say where it is")
        return
    path = looks.database
    if path is not None and not (path.exists() and path.stat().st_size):
        yield Finding.unknown("database", f"{path} is not there yet; `promptd start` makes it")
        return
    if path is not None and not os.access(path, os.R_OK):
        yield Finding.unknown(
            "database", f"{path} is not for this user to read; ask as root, or as its owner"
        )
        return
    with ledger.looking(looks.settings.database) as connection:
        found = list(ledger.database(connection))
        yield from found
        if path is not None:
            yield ledger.integrity(connection, path)
            yield ledger.log(path)
        else:
            yield ledger.server(connection)
        if not any(each.mend for each in found):
            yield from times.ledger_time(connection, now=looks.now)


def _secrets(looks: Looks) -> Iterator[Finding]:
    if looks.settings is None:
        return
    try:
        unread = unusable_secrets(looks.context)
    except Unavailable as exc:  # logins lie in the database, which has a look of its own
        yield Finding.unknown("secrets", str(exc))
        return
    for each in unread:
        whose = " ".join(filter(None, (each["provider"], each["label"])))
        mend = "see `promptd auth list`; a login is made with `promptd auth login`"
        yield Finding.fault("secrets", f"{whose}: {each['why']}", mend)
    if not unread:
        yield Finding.ok("secrets", "everything that the configuration refers to can be read")


_INSIDE = {
    "python": _python,
    "network": _network,
    "files": _files,
    "configuration files": _written_keys,
    "disk": _disk,
    "database": _database,
    "secrets": _secrets,
}


def _unit(name: str, *, answers: bool) -> Iterator[Finding]:
    yield from unit.unit(name, unit.properties(name), answers=answers)


def _unit_answers(settings: Settings) -> Iterator[Finding]:
    yield from unit.answers(settings.listen)


def _zone_directories() -> tuple[str, ...]:
    import zoneinfo  # noqa: PLC0415 - its attribute changes when it is told of other directories

    return zoneinfo.TZPATH


def _zone_package() -> str | None:
    try:
        return str(import_module("tzdata").IANA_VERSION)
    except ImportError:  # the system's data may do
        return None


def _zones_of(settings: Settings) -> Iterator[str]:
    yield settings.timezone.key
    yield from (job.timezone.key for job in settings.jobs.values())
