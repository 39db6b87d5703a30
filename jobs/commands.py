"""Commands of jobs and deliveries: without a shell, without our secrets, and ended whole at their limit.

Where this process is killed (SIGKILL, out of memory) nobody is left to end them: a command then runs on until
it ends by itself, except under systemd, which ends all that a unit has started. Linux could end it with its
parent (prctl(2), PR_SET_PDEATHSIG), but only code between fork and exec can ask for that, and such code is
unsafe in a process with threads.
"""

import asyncio
import codecs
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import MappingProxyType

from jobs.credential import SecretReference
from jobs.definition import Command
from jobs.errors import CommandFailed
from jobs.providers.registry import Registry, builtin_rows
from jobs.redaction import redacted
from jobs.secret import Redactor
from jobs.text import without_nul

LONGEST_COMPLAINT = 200
_SHELL = ("/bin/sh", "-c")
_ERRORS_KEPT = 4096
_FAILED = 255  # what a command ends with that cannot decide; so says xargs(1), ssh(1) likewise
_LAST_WORDS = 1.0  # seconds in which what a command leaves behind may still write, and in which it dies
_WHERE_SYSTEMD_KEEPS_SECRETS = "CREDENTIALS_DIRECTORY"


def without_secrets(
    environ: Mapping[str, str], registry: Registry, secret_keys: Iterable[SecretReference]
) -> dict[str, str]:
    """Return an environment without any variable that holds a key of a provider, or of ours, or leads to one.

    The built-in key variables are left out whether or not their provider is used.
    """
    configured = (credential.reference for provider in registry for credential in provider.credentials)
    references = (*configured, *secret_keys)
    withheld = {each.name for each in references if each is not None and each.scheme == "env"}
    withheld.update(name for row in builtin_rows().values() for name in row.key_env)
    withheld.add(_WHERE_SYSTEMD_KEEPS_SECRETS)
    return {name: value for name, value in environ.items() if name not in withheld}


@dataclass(frozen=True, slots=True)
class Given:
    """What one command gets of its own: standard input, and variables beside those that all have."""

    text: bytes = field(default=b"", repr=False)
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


_NOTHING = Given()


class _Listener(asyncio.SubprocessProtocol):
    """Hears a command: the beginning of its output, the end of its complaints, and that it is over."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.output, self.errors = bytearray(), bytearray()
        self.printed = self.complained = 0
        self.exited, self.closed = asyncio.Event(), asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self.printed += len(data)
            self.output += data[: self._most - len(self.output)]
        else:
            self.complained += len(data)
            self.errors = (self.errors + data)[-_ERRORS_KEPT:]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands in this environment; what they print and complain of is told without our secrets."""

    environ: Mapping[str, str] = field(repr=False)
    redactor: Redactor

    async def output_of(self, command: Command, *, given: Given = _NOTHING) -> str:
        """Return a command's standard output as text, and say in it where it was cut; raises CommandFailed.

        It need not read what it is given. Whatever is no UTF-8 becomes U+FFFD. What the command leaves
        running in its process group is ended.
        A secret of ours is taken out before the text says that it was cut, so that one that was cut goes too.
        """
        listener = await self._succeeded(command, given)
        own = partial(self.redactor.own, is_cut=listener.printed > command.max_bytes)
        text = await redacted(own, _text(listener, command.max_bytes))
        return f"{text}{_cut_note(listener, command.max_bytes)}"

    async def answer_of(self, command: Command, *, given: Given) -> bytes:
        """Return what a program of ours has printed, as it is, cut at its limit; raises CommandFailed.

        A secret may stand in it: it is to be parsed first, and whatever of it is told is redacted then.
        """
        return bytes((await self._succeeded(command, given)).output)

    async def _succeeded(self, command: Command, given: Given) -> _Listener:
        listener = _Listener(command.max_bytes)
        code = await self._done(command, listener, given)
        if code != 0:
            raise CommandFailed(f"{_named(command)} {_ending(code)}{self._complaint(listener)}")
        return listener

    async def code_of(self, command: Command) -> int:
        """Return what a command ends with, 0 to 254; raises CommandFailed for 255, a signal, or no end.

        What it prints is not kept. What it leaves running in its process group is ended.
        """
        listener = _Listener(0)
        code = await self._done(command, listener, _NOTHING)
        if not 0 <= code < _FAILED:
            raise CommandFailed(f"{_named(command)} {_ending(code)}{self._complaint(listener)}")
        return code

    async def _done(self, command: Command, listener: _Listener, given: Given) -> int:
        """Run a command to its end, and end what it has left behind; negative: the signal that ended it."""
        transport = await self._whole(command, listener, given)
        try:
            await _ended(listener, command)
        finally:
            await _swept(transport.get_pid(), listener)
            transport.close()
        code = transport.get_returncode()
        return -signal.SIGKILL if code is None else code

    async def _whole(
        self, command: Command, listener: _Listener, given: Given
    ) -> asyncio.SubprocessTransport:
        """Start a command, also while it is cancelled: half of a start knows no process group to end.

        asyncio would end the first process alone, and wait for whatever that has started.
        """
        starting = asyncio.ensure_future(self._started(command, listener, given))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(CommandFailed):
                transport = await starting
                await _swept(transport.get_pid(), listener)
                transport.close()
            raise

    async def _started(
        self, command: Command, listener: _Listener, given: Given
    ) -> asyncio.SubprocessTransport:
        words = (*_SHELL, *command.words) if command.shell else command.words
        try:
            with _readable(given.text) as stdin:
                transport, _ = await asyncio.get_running_loop().subprocess_exec(
                    lambda: listener, *words, stdin=stdin, env={**self.environ, **given.variables},
                    start_new_session=True,
                )  # fmt: skip
        except (OSError, ValueError) as exc:
            why = (exc.strerror if isinstance(exc, OSError) else None) or "its words cannot be passed on"
            raise CommandFailed(f"{_named(command)} cannot be started: {why}") from exc
        return transport

    def _complaint(self, listener: _Listener) -> str:
        cut = "…" if listener.complained > _ERRORS_KEPT else ""  # so that a secret's end is known for one
        lines = self.redactor.clean(cut + listener.errors.decode("utf-8", "replace")).split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        shown = "".join(each if each.isprintable() else " " for each in last)[:LONGEST_COMPLAINT]
        return f": {shown}" if shown else ""


@contextmanager
def _readable(text: bytes) -> Iterator[int]:
    """Yield what a command is to read from: a file in memory, which nobody has to feed and no disk holds.

    A pipe would have to be fed for as long as the command runs, and `/dev/stdin` cannot be opened on the
    socket that asyncio makes of one.
    """
    if not text:
        yield asyncio.subprocess.DEVNULL
        return
    with os.fdopen(os.memfd_create("given"), "w+b") as file:
        file.write(text)
        file.seek(0)
        yield file.fileno()


async def _ended(listener: _Listener, command: Command) -> None:
    """Wait until a command is over, and a moment longer for those who still hold its output open."""
    try:
        async with asyncio.timeout(command.timeout.total_seconds()):
            await listener.exited.wait()
    except TimeoutError as exc:
        limit = command.timeout / timedelta(seconds=1)
        raise CommandFailed(
            f"{_named(command)} had not ended after {limit:g} s and was killed; raise its `timeout`"
        ) from exc
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await listener.closed.wait()


async def _swept(pid: int, listener: _Listener) -> None:
    """Kill the whole process group of a command, whose leader's id is the group's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await listener.exited.wait()


def _named(command: Command) -> str:
    return "the shell command" if command.shell else f"the command {command.words[0]!r}"


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with {code}"


def _text(listener: _Listener, most: int) -> str:
    was_cut = listener.printed > most
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return without_nul(decoder.decode(bytes(listener.output), final=not was_cut))


def _cut_note(listener: _Listener, most: int) -> str:
    if listener.printed <= most:
        return ""
    return f"\n[cut here: {listener.printed:,} bytes were printed, and {most:,} are kept]\n"
