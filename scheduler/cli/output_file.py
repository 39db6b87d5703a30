"""A file that a command writes: beside a daemon as the daemon's user, who may not go everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import Unavailable, UsageError
from scheduler.cli.context import Context


def is_there(context: Context, file: Path) -> bool:
    """Say whether a file that is to be written is there already; raises UsageError where nobody can tell."""
    if context.nowhere and not file.is_absolute():
        raise UsageError(
            f"the daemon's user writes {file}, and may not enter this directory; "
            "name the whole path of a file where that user may write"
        )
    try:
        return file.exists()
    except OSError as exc:
        raise UsageError(f"cannot write {file}: {exc.strerror}{_who(context)}; choose another place") from exc


@contextmanager
def written(context: Context) -> Iterator[None]:
    """Say of what could not be written who wanted to write it."""
    try:
        yield
    except Unavailable as exc:
        if not context.carried:
            raise
        raise Unavailable(f"{exc}{_who(context)}") from exc


def _who(context: Context) -> str:
    return " (the daemon's user writes it)" if context.carried else ""
