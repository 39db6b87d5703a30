"""`promptd` forked from a process that has imported it already: to import takes a command most of its time.

What is forked is a process of its own: descriptors, environment, directory, exit code; and it ends as an
interpreter does, which a child of multiprocessing's fork server does not. Daemons are never forked, and with
`--installed` nothing is.
"""

import atexit
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")
FORBIDS = "TESTS_START_EACH_COMMAND"
"""The variable that `--installed` sets: whatever it is, nothing is forked."""

_WORD = struct.Struct("=i")
_BEGINS_WITHIN = 180.0  # seconds, with the imports before the first; a killed command ends within them, too
_READ_BY_THE_INTERPRETER = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")


def can_fork(environ: Mapping[str, str]) -> bool:
    """Say whether a command with this environment may be forked, and is the same then."""
    if FORBIDS in os.environ or not hasattr(os, "pidfd_open"):
        return False
    return _of_the_interpreter(environ) == _of_the_interpreter(_environ())


class Forked:
    """A command that is under way. What it says on its pipe: its id, then its exit code."""

    def __init__(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], streams: Sequence[int]
    ) -> None:
        """Begin it, with these descriptors for its standard input, output and error."""
        self._words = words
        request = json.dumps([list(words), str(cwd), dict(env)]).encode()
        self._status, write = os.pipe()
        try:
            socket.send_fds(_server(), [request], [*streams, write])
        finally:
            os.close(write)
        self.pid = self._told(_BEGINS_WITHIN)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code at the end, once; raises subprocess.TimeoutExpired."""
        code = self._told(timeout)
        os.close(self._status)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _told(self, timeout: float | None) -> int:
        if not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self._words, timeout or 0)
        said = os.read(self._status, _WORD.size)
        if not said:
            raise ChildProcessError("the process that all are forked from has ended")
        return int(_WORD.unpack(said)[0])


def run(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], input: str | None, timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run `promptd` with these words to its end, as subprocess.run does; raises subprocess.TimeoutExpired."""
    until = time.monotonic() + timeout
    with ExitStack() as ours:
        with ExitStack() as theirs:
            stdin = os.dup(0) if input is None else _reading(input)
            theirs.callback(os.close, stdin)
            pipes = [os.pipe() for _ in ("stdout", "stderr")]
            for read, write in pipes:
                ours.callback(os.close, read)
                theirs.callback(os.close, write)
            process = Forked(words, cwd, env, [stdin, *(write for _, write in pipes)])
        try:
            out, err = _read(words, [read for read, _ in pipes], until=until)
            code = process.wait(max(0.0, until - time.monotonic()))
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait(_BEGINS_WITHIN)
            raise
    return subprocess.CompletedProcess(words, code, out.decode(), err.decode())


def _reading(text: str) -> int:
    """Return a descriptor from which a text is read."""
    read, write = os.pipe()

    def say() -> None:
        with open(write, "wb") as file, suppress(BrokenPipeError):
            file.write(text.encode())

    threading.Thread(target=say, daemon=True).start()
    return read


def _read(words: Sequence[str], files: Sequence[int], *, until: float) -> list[bytes]:
    """Return what is said on each of these descriptors, to its end; raises subprocess.TimeoutExpired."""
    found = {file: bytearray() for file in files}
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            if (left := until - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(words, 0)
            for key, _ in selector.select(left):
                said = os.read(key.fd, 1 << 16)
                found[key.fd] += said
                if not said:
                    selector.unregister(key.fd)
    return [bytes(found[file]) for file in files]


def _environ() -> dict[str, str]:
    """Return the environment in which the process is that all are forked from."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {**kept, "PYTHONWARNINGS": "default"}


def _of_the_interpreter(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_READ_BY_THE_INTERPRETER)}


@cache
def _server() -> socket.socket:
    """Start the process; it ends when this one does. Each request is one message on the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(theirs.fileno())],
            env=_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.kill()  # nobody asks any more, whatever it is at
        process.wait()

    atexit.register(end)
    return ours
