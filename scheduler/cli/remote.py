"""A running daemon as a command sees it: found by its socket, and asked. Nothing heavy is imported for it."""

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jobs.errors import Busy, ConfigError, PromptdError, Unavailable, UsageError
from scheduler.cli import elsewhere
from scheduler.cli.context import Context
from scheduler.config.paths import absolute, default_state_dir, find
from scheduler.control_protocol import LONGEST_REPLY, VERSION, Unspoken, connect, decoded, encoded, sockets

CONNECTS_WITHIN = 0.5
GREETS_WITHIN = 5.0
GREETS_ELSEWHERE_WITHIN = 2.0  # many may be asked, one after the other
ANSWERS_WITHIN = 120.0
_LARGEST_CONFIG = 4 * 1024 * 1024
_PIECE = 64 * 1024
_STATE_DIR = re.compile(r"^state_dir:[ ]+([\w./-][\w./~@+-]*)[ ]*(?:#.*)?\r?$", re.MULTILINE)
_NOTHING = ("null", "Null", "NULL", "true", "false")


class ToldFaults(ConfigError):
    """A daemon says that its configuration cannot be used; the text is its own."""

    def __init__(self, text: str) -> None:
        PromptdError.__init__(self, text)
        self.faults = ()


_KINDS: Mapping[str, type[PromptdError]] = MappingProxyType(
    {
        "ConfigError": ToldFaults,
        "UsageError": UsageError,
        "Unavailable": Unavailable,
        "Busy": Busy,
    }
)


@dataclass(slots=True)
class RunningDaemon:
    """A connection to the daemon of this configuration. `facts` are what it said of itself."""

    connection: socket.socket
    facts: Mapping[str, Any] = field(default_factory=dict)
    _heard: bytes = b""

    def __enter__(self) -> "RunningDaemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, verb: str, *, within: float = ANSWERS_WITHIN, **what: Any) -> dict[str, Any]:
        """Return the answer to a verb; raises what the daemon says, and Unavailable when it says nothing."""
        self.connection.settimeout(within)
        try:
            self.connection.sendall(encoded({"verb": verb, **what}))
            return self.answer()
        except Unspoken as exc:
            raise Unavailable(str(exc)) from None
        except TimeoutError:
            raise Unavailable(f"the daemon has not answered within {within:g} s; see its log") from None

    def has_answered(self) -> bool:
        """Say whether an answer has been read already and not been returned yet."""
        return b"\n" in self._heard

    def answer(self) -> dict[str, Any]:
        """Return the next answer; raises what it says is wrong, and Unavailable when the daemon is gone."""
        while b"\n" not in self._heard:
            try:
                data = self.connection.recv(_PIECE)
            except ConnectionError:
                data = b""
            if not data or len(self._heard) > LONGEST_REPLY:
                raise Unavailable("the daemon has ended, or its answer cannot be understood; see its log")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return _judged(decoded(line))


def running(context: Context) -> RunningDaemon | None:
    """Return the daemon of this configuration, None where none answers; raises ConfigError as `find` does."""
    config = find(context.config, context.environ)
    for path in _places(context, config):
        daemon = _greeted(path, os.path.realpath(config))
        if daemon is not None:
            return daemon
    return None if context.carried else _elsewhere(config)


def _places(context: Context, config: Path) -> list[Path]:
    """Return where to look; a command that is carried out asks the daemon that has sent it."""
    if context.in_force is None:
        return sockets(state_dir_of(config, context.environ), config, context.environ)
    from scheduler.config.in_force import taken_over  # noqa: PLC0415 - who is not carried does without

    return sockets(taken_over(context.in_force).state_dir, config, context.environ)


def _elsewhere(config: Path) -> RunningDaemon | None:
    """Return the daemon that listens where the file does not say any more; None where several do."""
    found = []
    for path in elsewhere.listening():
        daemon = _greeted(path, os.path.realpath(config), within=GREETS_ELSEWHERE_WITHIN, trusted_only=True)
        if daemon is not None:
            found.append(daemon)
    if len(found) == 1:
        return found[0]
    for daemon in found:
        daemon.connection.close()
    return None


def ask(context: Context, verb: str, **what: Any) -> dict[str, Any]:
    """Ask the daemon to do something; raises Unavailable where there is none."""
    daemon = running(context)
    if daemon is None:
        raise Unavailable(no_daemon(context))
    with daemon:
        return daemon.ask(verb, **what)


def tell_daemon(context: Context, verb: str, **what: Any) -> dict[str, Any] | None:
    """Ask the daemon to do something if there is one; None where there is none, or it has just ended."""
    with suppress(Unavailable):
        return ask(context, verb, **what)
    return None


def no_daemon(context: Context) -> str:
    """Say that this needs a daemon, and what to do."""
    config = find(context.config, context.environ)
    places = _places(context, config)
    closed = next((path for path in places if os.path.exists(path) and not os.access(path, os.W_OK)), None)
    if closed is not None:
        return f"{closed} is a daemon's, and this user may not ask it; ask as root, or as one of its group"
    looked = " or ".join(map(str, places)) or "the state directory, which is not known"
    return (
        f"this needs a daemon, and none answers for {config} at {looked}; start it with `promptd start`, "
        "or, if it runs with another state_dir or as another user, ask it as that one"
    )


def state_dir_of(config: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the state directory that a file names, read without judging it; None where it cannot be read."""
    base = config.absolute().parent
    try:
        if not config.is_file():  # a pipe would be waited for, and be empty for whoever reads it next
            return None
        with config.open("rb") as stream:
            text = stream.read(_LARGEST_CONFIG).decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return None
    written = _written_state_dir(text, config) if "state_dir" in text else None
    return absolute(written, base, environ) if written else default_state_dir(base, environ)


def _written_state_dir(text: str, config: Path) -> str | None:
    """Return the value of the key: by its line where it is written plainly, else by reading the YAML."""
    plain = _STATE_DIR.search(text)
    if plain and plain[1] not in _NOTHING:
        return plain[1]
    from scheduler.config.sources import read  # noqa: PLC0415 - a plain file is read without a YAML library

    try:
        data = read(config)[0].data
    except ConfigError:
        return None
    found = data.get("state_dir") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None


def _greeted(
    path: Path, config: str, *, within: float = GREETS_WITHIN, trusted_only: bool = False
) -> RunningDaemon | None:
    """Return the daemon at a socket, if it is of this configuration and speaks as we do."""
    try:
        daemon = RunningDaemon(connect(path, timeout=CONNECTS_WITHIN))
    except (OSError, ValueError):
        return None
    if trusted_only and not elsewhere.is_trusted(daemon.connection):
        daemon.connection.close()
        return None
    try:
        facts = daemon.ask("hello", within=within)
    except (PromptdError, OSError):
        facts = {}
    if os.path.realpath(str(facts.get("config", ""))) != config:
        daemon.connection.close()
        return None
    daemon.facts = facts
    return daemon


def _judged(reply: Mapping[str, Any]) -> dict[str, Any]:
    match reply:
        case {"v": version} if version != VERSION:
            raise Unavailable(f"the daemon speaks version {version} of its protocol; restart it")
        case {"answer": dict(answer)}:
            return answer
        case {"error": {"kind": str(kind), "text": str(text)}}:
            raise _KINDS.get(kind, Unavailable)(text)
        case _:
            raise Unavailable("the daemon's answer cannot be understood; restart it")
