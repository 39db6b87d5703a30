"""A command that a running daemon carries out: with its secrets and its state, on the caller's terminal."""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from jobs.errors import ConfigError, Unavailable
from scheduler.cli.context import Context
from scheduler.cli.lazy import Entry
from scheduler.cli.remote import RunningDaemon, running
from scheduler.control_protocol import SIGNALS, TERMINAL, close_all, encoded

ENDS_WITHIN = 5.0
"""Seconds that a daemon has to answer after a signal; and to take what it is sent."""

_LARGEST_FILE = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Words:
    """A command as it is carried out: options of the program, its name, its arguments.

    `given` says which arguments are files that the caller has opened, as (place, number) pairs.
    """

    flags: tuple[str, ...]
    command: tuple[str, ...]
    args: tuple[str, ...]
    given: tuple[tuple[int, int], ...] = ()

    def written(self) -> bytes:
        """Return them as JSON, for the process that carries them out."""
        names = ("flags", "command", "args", "given")
        return json.dumps({name: getattr(self, name) for name in names}).encode()


def carried_out(
    context: Context,
    command: Sequence[str],
    args: Sequence[str],
    *,
    entry: Entry,
    streams: tuple[int, int, int] | None = None,
) -> int | None:
    """Have the daemon carry a command out and return its exit code; None where it is ours to do.

    It has our own streams, or those descriptors.
    """
    streams = streams or _streams()
    if context.carried or streams is None:
        return None
    try:
        daemon = running(context)
    except ConfigError:
        return None
    if daemon is None:
        return None
    flags = (*(("-v",) if context.verbose else ()), *(() if context.color else ("--no-color",)))
    with daemon, _Opened() as opened:
        args, given = opened.inputs(args, entry.files)
        words = Words(flags, tuple(command), tuple(args), given)
        descriptors = [*streams, opened.directory(), opened.memory(words.written()), *opened.given]
        request = {
            "verb": "carry",
            "command": " ".join(command),
            "changes": entry.changes,
            "waits": entry.waits,
            "terminal": {name: os.environ[name] for name in TERMINAL if name in os.environ},
        }
        return _followed(daemon, encoded(request), descriptors)


def _followed(daemon: RunningDaemon, request: bytes, descriptors: Sequence[int]) -> int:
    """Send the request and wait for the end of its command; return its exit code.

    What interrupts us is passed on. A second signal ends us, and so does the silence of a daemon that was
    told of the first: the exit code is then the last signal's. Raises Unavailable where it takes nothing.
    """
    daemon.connection.settimeout(ENDS_WITHIN)
    try:
        with _heard() as signals:
            sent = socket.send_fds(daemon.connection, [request], list(descriptors))
            daemon.connection.sendall(request[sent:])
            return _to_its_end(daemon, signals)
    except TimeoutError:
        raise Unavailable(f"the daemon has taken nothing for {ENDS_WITHIN:g} s; see its log") from None


def _to_its_end(daemon: RunningDaemon, signals: socket.socket) -> int:
    told: int | None = None
    while True:
        if not daemon.has_answered():
            ready = _ready(daemon.connection, signals, within=None if told is None else ENDS_WITHIN)
            if daemon.connection not in ready:
                number = signals.recv(1)[0] if ready else None
                if told is not None:
                    return _left_to_it(daemon, number or told)
                assert number is not None
                _pass_on(daemon.connection, number)
                told = number
                continue
        match daemon.answer():
            case {"exit": int(code)}:
                return code
            case _:
                continue


def _ready(*sockets: socket.socket, within: float | None) -> Sequence[socket.socket]:
    """Return those that can be read, none after so many seconds."""
    return select.select(sockets, (), (), within)[0]


def _pass_on(connection: socket.socket, number: int) -> None:
    with suppress(OSError):
        connection.sendall(encoded({"verb": "signal", "signal": signal.Signals(number).name}))


def _left_to_it(daemon: RunningDaemon, number: int) -> int:
    pid = daemon.facts.get("pid")
    click.echo(f"promptd: not waited for any longer: the daemon (process {pid}) is to end it", err=True)
    return 128 + number


@contextmanager
def _heard() -> Iterator[socket.socket]:
    """Give a socket from which the numbers of signals are read that would have ended us."""
    hearing, telling = socket.socketpair()
    before = {}
    with hearing, telling:
        telling.setblocking(False)
        woken = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
        try:
            for number in map(signal.Signals.__getitem__, SIGNALS):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, lambda _number, _frame: None)
            yield hearing
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken)


def _streams() -> tuple[int, int, int] | None:
    """Return the descriptors of our three streams; None where they are none, such as inside a test."""
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        return (sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return None


class _Opened(ExitStack):
    """Descriptors that go along, closed on our side at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []

    def directory(self) -> int:
        """Return the working directory; the root where it is gone."""
        try:
            return self._kept(os.open(".", os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return self._kept(os.open("/", os.O_PATH | os.O_DIRECTORY))

    def memory(self, content: bytes) -> int:
        """Return a file in memory, which everybody may open who gets it."""
        number = self._kept(os.memfd_create("promptd", os.MFD_CLOEXEC))
        with open(number, "wb", closefd=False) as stream:
            stream.write(content)
        os.lseek(number, 0, os.SEEK_SET)
        return number

    def inputs(
        self, args: Sequence[str], files: Mapping[str, str]
    ) -> tuple[list[str], tuple[tuple[int, int], ...]]:
        """Open the files that options name; return the arguments, and where each file stands in them.

        A file that cannot be read is left to the command, which says so.
        """
        words, found = list(args), []
        for option, default in files.items():
            place = _value_of(words, option, default)
            content = _content(Path(words[place]).expanduser()) if place is not None else None
            if place is not None and content is not None:
                found.append((place, len(self.given)))
                self.given.append(self.memory(content))
        return words, tuple(found)

    def _kept(self, number: int) -> int:
        self.callback(close_all, [number])
        return number


def _value_of(words: list[str], option: str, default: str) -> int | None:
    """Return where an option's value stands, which becomes a word of its own; the default is added."""
    for place, word in enumerate(words):
        if word == option:
            return place + 1 if place + 1 < len(words) else None
        if word.startswith(f"{option}="):
            words[place : place + 1] = [option, word.removeprefix(f"{option}=")]
            return place + 1
    words[:0] = [option, default]
    return 1


def _content(path: Path) -> bytes | None:
    try:
        if not path.is_file():  # nobody may ever write into a pipe
            return None
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError):
        return None
    return content if len(content) <= _LARGEST_FILE else None


class Forwarded(click.Command):
    """Stands for a command until it is known who does it; the command itself is imported only here."""

    def __init__(self, name: str, *, entry: Entry) -> None:
        super().__init__(name, add_help_option=False)
        self._entry = entry

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are: the one who does the command reads them."""
        ctx.args = list(args)
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        """Have it carried out, or do it in this process."""
        context, name = ctx.find_object(Context), str(ctx.info_name)
        assert context is not None
        command = ctx.command_path.split()[1:]
        code = carried_out(context, command, ctx.args, entry=self._entry)
        if code is not None:
            return code
        real = self._entry.made(name)
        with real.make_context(name, list(ctx.args), parent=ctx.parent) as own:
            return real.invoke(own)
