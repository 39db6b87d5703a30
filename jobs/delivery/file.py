"""Files: a result is written whole or not at all, and nothing leads out of the directory that is meant."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath

from jobs.delivery import limits
from jobs.delivery.file_name import file_name
from jobs.delivery.message import Message
from jobs.delivery.target import FileTarget
from jobs.errors import Undeliverable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700


def write(target: FileTarget, message: Message) -> None:
    """Write a message's text to its file, in place of one that is there. Blocks.

    A new file is for its owner only, and so are new directories; one that is replaced keeps its mode. Raises
    Undeliverable: for good where its name leads nowhere, else with what the system says.
    """
    try:
        path = PurePosixPath(file_name(target.template, message))
    except ValueError as exc:
        raise Undeliverable(f"the name of its file {exc}", permanent=True) from None
    text, _ = limits.fitted(message, limits.FILE_BYTES)
    content = text.encode() if text.endswith("\n") else f"{text}\n".encode()
    try:
        directory = _opened(target, path)
        try:
            _replace(directory, path.name, content)
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


def _replace(directory: int, name: str, content: bytes) -> None:
    draft = f".promptd-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, _FILE_MODE, dir_fd=directory), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _mode_of(directory, name))
            os.fsync(file.fileno())
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise
    os.fsync(directory)


def _mode_of(directory: int, name: str) -> int:
    """Return the mode of the file that is replaced, or that of a new one."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return _FILE_MODE
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else _FILE_MODE
