"""A changed job file on its way: checked as if it were there, put there whole, taken back if refused."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jobs import clock
from jobs.errors import ConfigError, Fault, Unavailable, UsageError
from scheduler.cli import remote
from scheduler.cli.context import Context
from scheduler.cli.remote import ToldFaults
from scheduler.config import loader
from scheduler.config.loader import Loaded
from scheduler.config.paths import find

_NEW_MODE = 0o644


def check(context: Context, drafts: Mapping[Path, str | None], *, shown_as: Path | None = None) -> Loaded:
    """Return the configuration as it would be with these files; raises ConfigError with every fault.

    `shown_as` is the file that people know the text by.
    """
    try:
        return loader.load_with_origins(
            find(context.config, context.environ),
            environ=context.environ,
            now=clock.utcnow(),
            drafts=drafts,
        )
    except ConfigError as exc:
        if shown_as is None:
            raise
        raise ConfigError([_shown(fault, drafts, shown_as) for fault in exc.faults]) from None


def _shown(fault: Fault, drafts: Mapping[Path, str | None], shown_as: Path) -> Fault:
    return replace(fault, file=shown_as) if fault.file in drafts else fault


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file, and what it held when it was looked at; None where it was not there."""

    path: Path
    before: bytes | None

    @classmethod
    def at(cls, path: Path) -> "JobFile":
        """Look at a file; raises UsageError when it cannot be read."""
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise UsageError(f"{path} is no file; choose another name, or remove it")
            return cls(path, path.read_bytes())
        except FileNotFoundError:
            return cls(path, None)
        except OSError as exc:
            raise UsageError(f"cannot read {path}: {exc.strerror}") from exc

    def change(self, context: Context, text: str | None) -> str:
        """Put a text there, or remove the file, and have a daemon apply it; return what came of that.

        Raises UsageError when the file cannot be written, or is another than it was; and ConfigError when the
        daemon refuses: then the file is as it was.
        """
        after = None if text is None else text.encode()
        self._put(self.before, after)
        try:
            return _applied(context)
        except ConfigError:
            self._put(after, self.before)
            raise

    def _put(self, expected: bytes | None, content: bytes | None) -> None:
        """Replace the whole file, or remove it; raises UsageError when it holds something unexpected."""
        try:
            if JobFile.at(self.path).before != expected:
                raise UsageError(f"{self.path} was changed by somebody else meanwhile; nothing was written")
            if content is None:
                self.path.unlink()
            else:
                _write(self.path, content, new=expected is None)
            _keep_directory(self.path.parent)
        except OSError as exc:
            raise UsageError(f"cannot write {self.path}: {exc.strerror}") from exc


def _applied(context: Context) -> str:
    """Have a daemon apply what the files say now, and return what came of it; raises ConfigError."""
    daemon = remote.running(context)
    if daemon is None:
        return "no daemon runs that would have to be told"
    with daemon:
        try:
            told = daemon.ask("reload")
        except Unavailable as exc:
            return f"it is not known whether the daemon has applied it: {exc}"
    if not told["ok"]:
        raise ToldFaults("\n".join(told["faults"]))
    return "the daemon has applied it"


def _write(link: Path, content: bytes, *, new: bool) -> None:
    """Write a file whole or not at all; a new one never takes the place of another."""
    path = link.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
            stream.flush()
            _look_like(stream.fileno(), path, new=new)
            os.fsync(stream.fileno())
        if new:
            os.link(name, path)
        else:
            os.replace(name, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def _look_like(number: int, path: Path, *, new: bool) -> None:
    """Give a file the mode of the one whose place it takes, and its owner where we may."""
    if new:
        os.fchmod(number, _NEW_MODE)
        return
    facts = path.stat()
    with suppress(PermissionError):
        os.fchown(number, facts.st_uid, facts.st_gid)
    os.fchmod(number, facts.st_mode & 0o777)


def _keep_directory(path: Path) -> None:
    """Have the names in a directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
