"""Having the control socket: one process listens, and what dead ones have left is replaced."""

import fcntl
import os
import socket
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from scheduler.control_protocol import SOCKET_NAME, ReachableName, connect, runtime_directory

_MODE = 0o660
_LOCK_NAME = "control.lock"
_QUEUE = 32
_ANSWERS_WITHIN = 0.5
_CREDENTIALS = struct.Struct("3i")


class Taken(Exception):
    """Another process listens already."""


class ListeningSocket:
    """The socket of one state directory, from `open` to `close`.

    It lies in `$RUNTIME_DIRECTORY` where there is one, with a link to it in the state directory, so that a
    shell without that variable finds it.
    """

    def __init__(self, state_dir: Path, environ: Mapping[str, str]) -> None:
        runtime = runtime_directory(environ)
        self.path = (runtime or state_dir) / SOCKET_NAME
        self._link = state_dir / SOCKET_NAME if runtime and runtime != state_dir else None
        self._state_dir = state_dir
        self._lock = -1
        self._made: list[tuple[Path, tuple[int, int]]] = []

    def open(self) -> socket.socket:
        """Return the socket, listening and not blocking; raises Taken, or OSError where it cannot be had."""
        self._lock = _locked(self._state_dir / _LOCK_NAME)
        try:
            if _answers(self.path):
                raise Taken(str(self.path))
            listener = _listening(_beside(self.path))
            self._put(_beside(self.path), self.path)
            if self._link is not None:
                with suppress(FileNotFoundError):
                    _beside(self._link).unlink()
                _beside(self._link).symlink_to(self.path)
                self._put(_beside(self._link), self._link)
        except BaseException:
            self.close()
            raise
        return listener

    def close(self) -> None:
        """Remove what this process has put there, and nothing that another one has put in its place."""
        for path, identity in self._made:
            with suppress(OSError):
                if _identity(path) == identity:
                    path.unlink()
        self._made.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _put(self, new: Path, place: Path) -> None:
        new.replace(place)
        self._made.append((place, _identity(place)))


def listening_process(state_dir: Path, environ: Mapping[str, str]) -> int | None:
    """Return the id of the process that listens for a state directory, without a word from it.

    It is 0 for one that is not known here, such as one in a container; None where nobody listens.
    """
    runtime = runtime_directory(environ)
    for path in ([runtime / SOCKET_NAME] if runtime else []) + [state_dir / SOCKET_NAME]:
        try:
            with connect(path, timeout=_ANSWERS_WITHIN) as connection:
                found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except TimeoutError:
            return 0
        except OSError:
            continue
        return int(_CREDENTIALS.unpack(found)[0])
    return None


def _beside(path: Path) -> Path:
    """Return the name under which something is made before it is moved to its place."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _locked(path: Path) -> int:
    """Return the lock of a state directory, which ends with the process; raises Taken."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Taken(str(path)) from None
    return lock


def _answers(path: Path) -> bool:
    """Say whether somebody listens; raises OSError for something that is there and is no socket."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(17, "something else than a socket is there", str(path))
        connect(path, timeout=_ANSWERS_WITHIN).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except TimeoutError:
        return True
    return True


def _listening(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with ReachableName(path) as name:
            listener.bind(name)
        path.chmod(_MODE)
        listener.listen(_QUEUE)
    except BaseException:
        listener.close()
        raise
    return listener


def _identity(path: Path) -> tuple[int, int]:
    facts = path.lstat()
    return facts.st_dev, facts.st_ino
