"""A file that a command writes: beside a daemon as the daemon's user, who may not go everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import Unavailable, UsageError
from scheduler.cli.context import Context

_PRIVATE = "/systemd-private-"


def is_there(context: Context, file: Path) -> bool:
    """Say whether a file that is to be written is there already; raises UsageError where nobody can tell."""
    if context.nowhere and not file.is_absolute():
        raise UsageError(
            f"the daemon's user writes {file}, and may not enter this directory; "
            "name the whole path of a file where that user may write"
        )
    private = _private_directory(file) if context.carried else None
    if private is not None:
        raise UsageError(
            f"the daemon's user writes {file}, and has a {private} of its own, which nobody else sees; "
            "name a file in the state directory, say"
        )
    try:
        return file.exists()
    except OSError as exc:
        raise UsageError(f"cannot write {file}: {exc.strerror}{_who(context)}; choose another place") from exc


def _private_directory(file: Path) -> str | None:
    """Return the directory above a file that systemd has put in another's place for this service.

    `PrivateTmp=` (systemd.exec(5)) mounts such over /tmp and /var/tmp; see proc(5) for the table of mounts.
    """
    try:
        mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return None
    places = (each[4] for each in mounts if _PRIVATE in each[3])
    return next((place for place in places if file.absolute().is_relative_to(place)), None)


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
