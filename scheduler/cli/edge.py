"""The edge of the program: an error becomes a line that says what to do, and an exit code (sysexits.h)."""

import errno
import os
import sqlite3
import sys
import traceback
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

import click

from jobs.errors import Busy, ConfigError, PromptdError, Unavailable, UsageError
from jobs.secret import Redactor
from jobs.text import readable


class ExitCode(IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 69
    BUG = 70
    BUSY = 75
    CONFIG = 78
    INTERRUPTED = 130
    PIPE_CLOSED = 141


_PREFIX = "promptd: "
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CODES = MappingProxyType(
    {
        ConfigError: ExitCode.CONFIG,
        UsageError: ExitCode.USAGE,
        Unavailable: ExitCode.UNAVAILABLE,
        Busy: ExitCode.BUSY,
    }
)


def exit_code_of(error: Exception, *, verbose: bool = False, redactor: Redactor) -> int:
    """Print what an error says to do, and return the exit code that stands for it.

    A bug is named in one line; its traceback is printed when `verbose`.
    """
    match error:
        case PromptdError():
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), ExitCode.FAILED)
            return _told(str(error), code, prefix="" if isinstance(error, ConfigError) else _PREFIX)
        case click.ClickException():
            return _said_by_click(error)
        case click.Abort():
            return ExitCode.INTERRUPTED
        case OSError() if isinstance(error, BrokenPipeError) or error.errno in _FULL:
            return _unwritten(error)
        case _ if _is_of_database(error):
            return _told(_database(error), ExitCode.BUSY if _is_locked(error) else ExitCode.UNAVAILABLE)
        case _:
            return _bug(error, verbose=verbose, redactor=redactor)


def pipe_closed() -> int:
    """Stop writing to a reader that has gone."""
    _stop_writing()
    return ExitCode.PIPE_CLOSED


def _unwritten(error: OSError) -> int:
    """Tell of output that could not be written, but for a reader that has gone; what was done stays done."""
    if isinstance(error, BrokenPipeError):
        return pipe_closed()
    _stop_writing()
    return _told(f"the output cannot be written: {error.strerror}; what was done is done", ExitCode.FAILED)


def open_closed_streams() -> None:
    """Open what the shell has closed (`>&-`), so that no other file becomes a standard stream.

    A standard input that was closed stays None: whoever wants to read it says so.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free, which is its own
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it is open to the end


def _stop_writing() -> None:
    """Write nowhere from now on, so that the interpreter does not complain of what is left at its end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def _told(text: str, code: int, *, prefix: str = _PREFIX) -> int:
    for line in text.splitlines() or [""]:
        click.echo(readable(f"{prefix}{line}"), err=True)
    return code


def _said_by_click(error: click.ClickException) -> int:
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return ExitCode.USAGE
        case click.UsageError():
            return _told(_usage(error), ExitCode.USAGE)
        case _:
            return _told(error.format_message(), error.exit_code)


def _usage(error: click.UsageError) -> str:
    message = " ".join(error.format_message().split())
    if error.ctx is None:
        return message
    return f"{message.rstrip('.')}; see `{error.ctx.command_path} --help`"


def _is_of_database(error: BaseException) -> bool:
    """Say whether a database driver raised it, without importing SQLAlchemy to know."""
    module = sys.modules.get("sqlalchemy.exc")
    return isinstance(error, sqlite3.Error) or (module is not None and isinstance(error, module.DBAPIError))


def _is_locked(error: BaseException) -> bool:
    """Say whether another process holds the database: it lets go of it again."""
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _database(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    said = " ".join(str(cause).split()) or type(cause).__name__
    look = "its file and disk" if isinstance(cause, sqlite3.Error) else "that its server runs, and its URL"
    return f"the database cannot be used: {said}; check {look}, or try again"


def _bug(error: Exception, *, verbose: bool, redactor: Redactor) -> int:
    if verbose:
        trace = "".join(traceback.format_exception(error))
        click.echo(readable(redactor.clean(trace)), err=True, nl=False)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    advice = "please report it" if verbose else "rerun with `promptd -v …` for the traceback, and report it"
    said = " ".join(redactor.clean(str(error)).split())
    return _told(f"this is a bug: {type(error).__name__}{where}: {said}; {advice}", ExitCode.BUG)
