"""What is spoken on the control socket: one JSON object a line, and file descriptors beside it (SCM_RIGHTS).

A request is `{"v": 1, "verb": …}`, its reply `{"v": 1, "answer": {…}}`, or `{"v": 1, "error": {…}}` with
`kind` and `text`. Both ends import this: it loads nothing heavy.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

VERSION = 1
LONGEST = 64 * 1024
LONGEST_REPLY = 4 * 1024 * 1024
MOST_DESCRIPTORS = 16
SOCKET_NAME = "control.sock"
SERVICE_SOCKET = Path("/run/promptd") / SOCKET_NAME
SERVICE_CONFIG = Path("/etc/promptd")
TERMINAL = ("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR")
"""What the carrying process learns of the caller's terminal; nothing else of his environment."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""What is passed on to a carried command."""

_SHORT_ENOUGH = 100


class Unspoken(Exception):
    """What came over the socket is not this protocol; the text says what is wrong with it."""


class Verbs(Protocol):
    """What a daemon does when it is asked; a PromptdError reaches the one who asked, with its exit code."""

    def hello(self) -> Mapping[str, Any]:
        """Return `config`, `database`, `pid`, `version` and `drain_timeout` in seconds."""
        ...

    def in_force(self) -> bytes:
        """Return the configuration that is in force, for a process that carries a command out."""
        ...

    async def reload(self) -> Mapping[str, Any]:
        """Return `ok`, names in `changed`, `added` and `removed`, `faults` as lines, `waits_for_restart`.

        `settings` are the sections, other than jobs, that are another now.
        """
        ...

    async def stop(self, *, now: bool) -> None:
        """Begin to drain, or with `now` to cancel what runs; returns at once."""
        ...

    async def cancel(self, run_id: int) -> bool:
        """Return whether the run is this process's to end, and its end under way."""
        ...

    async def wake(self, names: Sequence[str]) -> None:
        """Look at these jobs now."""
        ...

    async def run(
        self, job: str, values: Mapping[str, Any], *, retry_of: int | None = None, force: bool = False
    ) -> int:
        """Begin a run by hand, or another one of `retry_of`, and return its id."""
        ...


def encoded(message: Mapping[str, Any], *, longest: int = LONGEST) -> bytes:
    """Return a message as its line; raises Unspoken when it is too long to be sent."""
    line = json.dumps({"v": VERSION, **message}, separators=(",", ":")).encode() + b"\n"
    if len(line) > longest:
        raise Unspoken(f"the message is longer than {longest // 1024} kB")
    return line


def decoded(line: bytes) -> dict[str, Any]:
    """Return a line as its message, of whichever version; raises Unspoken for what is no message."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Unspoken("the message is no JSON") from None
    if not isinstance(message, dict):
        raise Unspoken("the message is no JSON object")
    return message


def received(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return what has arrived, and the descriptors with it; empty at the end. As `recv`, it may block."""
    data, descriptors, flags, _ = socket.recv_fds(
        connection, LONGEST, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    if flags & socket.MSG_CTRUNC:
        close_all(descriptors)
        raise Unspoken(f"more than {MOST_DESCRIPTORS} file descriptors came with the message")
    return data, descriptors


def close_all(descriptors: Sequence[int]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def sockets(state_dir: Path | None, config: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return where the daemon of a configuration may listen, in the order in which to look.

    `state_dir` is None where the caller cannot read the configuration that names it.
    """
    runtime = runtime_directory(environ)
    places = [runtime / SOCKET_NAME] if runtime else []
    if state_dir is not None:
        places.append(state_dir / SOCKET_NAME)
    if SERVICE_CONFIG in Path(os.path.abspath(config)).parents:
        places.append(SERVICE_SOCKET)
    return places


def runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory that systemd has made for the service's sockets, the first of several."""
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(given) if given else None


def connect(path: Path, *, timeout: float) -> socket.socket:
    """Return a connection to a socket, with that timeout; raises OSError where nobody answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with ReachableName(path) as name:
            connection.connect(name)
    except BaseException:
        connection.close()
        raise
    return connection


class ReachableName:
    """A name of a socket within the 108 bytes of `sockaddr_un`: its own, or one through its directory."""

    def __init__(self, path: Path) -> None:
        self._path, self._directory = path, -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _SHORT_ENOUGH:
            return str(self._path)
        self._directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._directory >= 0:
            os.close(self._directory)
