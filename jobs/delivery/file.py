"""Files: a result is written whole or not at all, and nothing leads out of the directory that is meant."""

import hashlib
import logging
import os
import re
import secrets
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from jobs import clock
from jobs.delivery import limits
from jobs.delivery.file_name import file_name
from jobs.delivery.message import Message
from jobs.delivery.own_files import OwnFiles
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DRAFT = re.compile(r"\.promptd-(?:(?P<whose>[0-9a-f]{16})-)?[0-9a-f]{16}")
LEFT_BEHIND_AFTER = timedelta(days=1)
"""How long nobody has touched a draft of which the process was killed, whoever it was."""

logger = logging.getLogger(__name__)


def write(target: FileTarget, message: Message, own: OwnFiles) -> None:
    """Write a message's text to its file, in place of one that is there. Blocks.

    A new file is for its owner only, and so are new directories; one that is replaced keeps its mode. The
    file's time is that of what it tells: one that tells of something later stays, since what is tried again
    comes late. Drafts that a killed process has left there go first. Raises Undeliverable: for good where its
    name leads nowhere, or to what is `own` or no file, else with what the system says.
    """
    try:
        path = PurePosixPath(file_name(target.template, message))
    except ValueError as exc:
        raise Undeliverable(f"the name of its file {exc}", permanent=True) from None
    taken = own.taken_by(target.base / path)
    if taken is not None:
        raise Undeliverable(f"{path} {taken}", permanent=True)
    text, _ = limits.fitted(message, limits.FILE_BYTES)
    content = text.encode() if text.endswith("\n") else f"{text}\n".encode()
    try:
        directory = _opened(target, path)
        whose = _whose(target, path, message)
        try:
            _sweep(directory, whose)
            if _may_replace(directory, path, message.at):
                _replace(directory, path.name, content, at=message.at, whose=whose)
        finally:
            os.close(directory)
    except OSError as exc:
        raise Undeliverable(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _opened(target: FileTarget, path: PurePosixPath) -> int:
    """Return the opened directory of a file, made where it is missing.

    Below the base no link is followed, whoever has put it there; an absolute path goes where it leads.
    """
    if path.is_absolute():
        _make(Path(path.parent))
        return os.open(path.parent, _DIRECTORY)
    _make(target.base)
    directory = os.open(target.base, _DIRECTORY)
    for part in path.parts[:-1]:
        try:
            with suppress(FileExistsError):
                os.mkdir(part, _DIRECTORY_MODE, dir_fd=directory)
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory


def _make(directory: Path) -> None:
    """Make a directory and those above it, each for its owner only."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(_DIRECTORY_MODE, exist_ok=True)


def _may_replace(directory: int, path: PurePosixPath, at: datetime) -> bool:
    """Say whether a message of that time may stand there; raises Undeliverable for what is no file.

    Ours are files whose time has no nanoseconds: what somebody else has written since is no newer result.
    Nor is a file of the future: a clock was wrong.
    """
    found = _found(directory, path.name)
    if found is None:
        return True
    if not stat.S_ISREG(found.st_mode):
        raise Undeliverable(f"{path} is there and no regular file; it was left as it is", permanent=True)
    is_newer = _nanoseconds(at) < found.st_mtime_ns <= _nanoseconds(clock.utcnow())
    if is_newer and found.st_mtime_ns % 1_000 == 0:
        logger.info("%s holds something newer already, and was left as it is", path)
        return False
    return True


def _whose(target: FileTarget, path: PurePosixPath, message: Message) -> str:
    """Return what the drafts of a delivery are called by: every try of it has the same."""
    told = "\0".join((target.name, str(path), message.key))
    return hashlib.blake2s(told.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def _sweep(directory: int, whose: str) -> None:
    """Remove the drafts that earlier tries of this delivery have left, and those of others after a day.

    No two senders share a draft: each has a name of its own. Should one still be at work at this very
    delivery, it has lost its claim meanwhile, and now its draft: it fails, and puts nothing in place.
    """
    day_ago = _nanoseconds(clock.utcnow() - LEFT_BEHIND_AFTER)
    for draft in filter(None, map(_DRAFT.fullmatch, os.listdir(directory))):
        with suppress(OSError):  # it is somebody else's, or gone meanwhile: no reason not to deliver
            found = os.stat(draft[0], dir_fd=directory, follow_symlinks=False)
            is_left = draft["whose"] == whose or found.st_ctime_ns < day_ago
            if is_left and stat.S_ISREG(found.st_mode):
                os.unlink(draft[0], dir_fd=directory)


def _replace(directory: int, name: str, content: bytes, *, at: datetime, whose: str) -> None:
    draft = f".promptd-{whose}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    found = _found(directory, name)
    try:
        with os.fdopen(os.open(draft, flags, _FILE_MODE, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode) if found else _FILE_MODE)
            os.utime(file.fileno(), ns=(_nanoseconds(at), _nanoseconds(at)))
            os.fsync(file.fileno())
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise
    os.fsync(directory)


def _found(directory: int, name: str) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    return None


def _nanoseconds(at: datetime) -> int:
    """Return a time as the file system has it, to the microsecond."""
    return (at - _EPOCH) // _MICROSECOND * 1_000
