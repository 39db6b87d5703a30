"""The process that carries out one command for somebody else; only the daemon starts it.

`python -m scheduler.cli.carried DAEMON CONFIG DIRECTORY WORDS GIVEN…`: the last ones are file descriptors.
The command's words come through one of them, so that no process list shows what was not there before.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from scheduler.cli import COMMANDS, main
from scheduler.cli.lazy import Entry

_PR_SET_PDEATHSIG = 1
_NOT_OURS = 2


def carry(daemon: int, config: str, directory: int, words: int, given: Sequence[int]) -> int:
    """Do one command in the caller's directory, and return its exit code."""
    _end_with(daemon)
    _enter(directory)
    with open(words, "rb") as stream:
        told: dict[str, Any] = json.load(stream)
    command, args = list(told["command"]), list(told["args"])
    if not _is_for_us(command):
        print(f"promptd: `{' '.join(command)}` is not carried out by a daemon", file=sys.stderr)
        return _NOT_OURS
    for place, number in told["given"]:
        args[place] = f"/proc/self/fd/{given[number]}"
    flags = [flag for flag in ("-v", "--no-color") if flag in told["flags"]]
    return main(["--config", config, *flags, *command, *args], carried=True)


def _end_with(daemon: int) -> None:
    """Have the kernel end this process when the daemon is gone, whichever way it went (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != daemon:
        sys.exit(128 + signal.SIGTERM)


def _enter(directory: int) -> None:
    """Go to the caller's directory; where this user may not go there, to the root."""
    try:
        os.fchdir(directory)
    except PermissionError:
        os.chdir("/")
    os.close(directory)


def _is_for_us(command: Sequence[str]) -> bool:
    entry: Entry | None = Entry("", commands=COMMANDS)
    for name in command:
        entry = entry.commands.get(name) if entry and entry.commands else None
    return entry is not None and entry.in_daemon


if __name__ == "__main__":
    parent, config_file, *numbers = sys.argv[1:]
    cwd, words_in, *files = map(int, numbers)
    sys.exit(carry(int(parent), config_file, cwd, words_in, files))
