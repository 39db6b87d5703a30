"""The process that carries out one command for somebody else; only the daemon starts it.

`python -m scheduler.cli.carried DAEMON CONFIG IN_FORCE DIRECTORY WORDS GIVEN…`: all but the first two are
file descriptors. The configuration that is in force and the command's words come through two of them, so that
no process list shows what was not there before, and what now stands in the files changes nothing.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from scheduler.cli import COMMANDS, main
from scheduler.cli.lazy import Entry, short_life

_PR_SET_PDEATHSIG = 1
_NOT_OURS = 2


def carry(
    daemon: int, config: str, in_force: int, *, directory: int, words: int, given: Sequence[int]
) -> int:
    """Do one command in the caller's directory, and return its exit code."""
    _end_with(daemon)
    entered = _enter(directory)
    with open(in_force, "rb") as stream:
        handed = stream.read()
    with open(words, "rb") as stream:
        told: dict[str, Any] = json.load(stream)
    command, args = list(told["command"]), list(told["args"])
    if not _is_for_us(command):
        print(f"promptd: `{' '.join(command)}` is not carried out by a daemon", file=sys.stderr)
        return _NOT_OURS
    for place, number in told["given"]:
        args[place] = f"/proc/self/fd/{given[number]}"
    flags = [flag for flag in ("-v", "--no-color") if flag in told["flags"]]
    line = ["--config", config, *flags, *command, *args]
    return main(line, in_force=handed, nowhere=not entered)


def _end_with(daemon: int) -> None:
    """Have the kernel end this process when the daemon is gone, whichever way it went (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != daemon:
        sys.exit(128 + signal.SIGTERM)


def _enter(directory: int) -> bool:
    """Go to the caller's directory; where this user may not go there, to the root. Return whether it went."""
    try:
        os.fchdir(directory)
    except PermissionError:
        os.chdir("/")
        return False
    finally:
        os.close(directory)
    return True


def _is_for_us(command: Sequence[str]) -> bool:
    entry: Entry | None = Entry("", commands=COMMANDS)
    for name in command:
        entry = entry.commands.get(name) if entry and entry.commands else None
    return entry is not None and entry.in_daemon


if __name__ == "__main__":
    parent, config_file, *numbers = sys.argv[1:]
    taken, cwd, words_in, *files = map(int, numbers)
    with short_life():
        code = carry(int(parent), config_file, taken, directory=cwd, words=words_in, given=files)
    sys.exit(code)
