"""Paths and addresses of one configuration: state directory, database, secret key, listening address."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobs.credential import SecretReference
from scheduler.config import paths
from scheduler.config.settings import Listen
from scheduler.config.sources import Files

DEFAULT_DATABASE = "sqlite:///promptd.db"
DEFAULT_JOBS_DIR = "jobs.d"
_SQLITE = "sqlite:///"
_POSTGRESQL = "postgresql+psycopg"


@dataclass(frozen=True, slots=True)
class Places:
    """What relative paths are relative to: the configuration file's directory, and the user's home."""

    base: Path
    environ: Mapping[str, str]
    files: Files = field(default_factory=Files)

    def absolute(self, text: str) -> Path:
        """Return a path of the configuration as an absolute one."""
        return paths.absolute(text, self.base, self.environ)

    def default_state_dir(self) -> Path:
        """Return systemd's directory, else the one of the XDG base directory specification."""
        return paths.default_state_dir(self.base, self.environ)

    def reference(self, text: str) -> SecretReference:
        """Return a secret reference, its file made absolute; raises ValueError."""
        reference = SecretReference.parse(text)
        if reference.scheme != "file":
            return reference
        return SecretReference("file", str(self.absolute(reference.name)))


def database_url(text: str, state_dir: Path) -> str:
    """Return an absolute database URL; raises ValueError, which never quotes the URL and its password."""
    scheme = text.partition("://")[0]
    match scheme:
        case "sqlite" if text.startswith(_SQLITE):
            return _SQLITE + _sqlite_file(text.removeprefix(_SQLITE), state_dir)
        case "postgresql+psycopg" if _is_server(text):
            return text
        case "sqlite" | "postgresql+psycopg":
            raise ValueError(f"is not a database URL; write {_SQLITE}FILE or {_POSTGRESQL}://USER@HOST/NAME")
        case _:
            known = f"{_SQLITE}promptd.db, or {_POSTGRESQL}://user@host/name"
            raise ValueError(f"names no kind of database that is known; write {known}")


def _sqlite_file(name: str, state_dir: Path) -> str:
    if not name or name.startswith(":memory:"):
        raise ValueError(f"keeps nothing, since it names no file; write {DEFAULT_DATABASE}")
    file = os.path.normpath(state_dir / name)
    if "?" in file or "\0" in file or name.endswith("/"):
        raise ValueError("is not the path of a file; write it without a question mark or a slash at its end")
    return file


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.port != 0 and len(parts.path) > 1 and "/" not in parts.path[1:]
    except ValueError:
        return False


def listen_address(text: str | None) -> Listen | None:
    """Return the address of a checked `host:port`; None for `off`, and the default for nothing."""
    if text is None:
        return Listen()
    if text == "off":
        return None
    host, _, port = text.rpartition(":")
    return Listen(host.strip("[]"), int(port))


def machine_zone() -> ZoneInfo:
    """Return the zone that this machine is set to, or UTC where it says nothing usable."""
    from tzlocal import get_localzone_name, reload_localzone  # noqa: PLC0415 - 20 ms, most files name a zone

    try:
        with warnings.catch_warnings(action="ignore"):  # of what the C library still takes the zone to be
            reload_localzone()  # it remembers the name otherwise, and the machine's zone can change
        return ZoneInfo(get_localzone_name() or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")
