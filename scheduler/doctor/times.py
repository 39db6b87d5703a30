"""The clock and the zones: is the time right, does the ledger agree with it, how old is the zone data."""

import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, func, select

from jobs.store.tables import instances, jobs, runs
from scheduler.doctor.finding import Finding

WRITTEN = datetime(2026, 11, 21, tzinfo=UTC)
A_LITTLE = timedelta(seconds=60)
AHEAD = timedelta(days=1)
_TIME_ERROR = 5
_LARGER_THAN_TIMEX = 512


def synchronised() -> bool | None:
    """Say whether the kernel's clock is kept right by somebody (adjtimex(2)); None where it does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_LARGER_THAN_TIMEX))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)


def clock(now: datetime, kept: bool | None) -> Finding:
    """Judge the machine's clock: what it says, and whether somebody keeps it right."""
    seen = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < WRITTEN:
        mend = "set the clock: `timedatectl set-ntp true`"
        return Finding.fault("clock", f"{seen} is before this program was written", mend)
    if kept is None:
        return Finding.unknown("clock", f"{seen}; the kernel does not say whether it is kept right")
    if kept:
        return Finding.ok("clock", f"{seen}, kept right by a time service")
    mend = "run `timedatectl set-ntp true`, or see that the host keeps this machine's clock right"
    return Finding.warning("clock", f"{seen}; no time service keeps it right", mend)


def ledger_time(connection: Connection, *, now: datetime) -> Iterator[Finding]:
    """Judge what the ledger says of the time: nothing in it can have been written after now."""
    name = "ledger's time"
    newest = [
        connection.execute(select(func.max(column))).scalar_one()
        for column in (runs.c.created_at, runs.c.finished_at, instances.c.heartbeat_at)
    ]
    last = max((each for each in newest if each is not None), default=None)
    ahead = connection.execute(
        select(jobs.c.name, jobs.c.cursor).where(jobs.c.cursor > now + AHEAD).order_by(jobs.c.name)
    ).all()
    if last is not None and last > now + A_LITTLE:
        seen = f"the clock is behind the newest row, which is of {last:%Y-%m-%d %H:%M:%S} UTC"
        yield Finding.fault(name, seen, "set the clock; what is due meanwhile is decided when it is right")
    for job, cursor in ahead:
        seen = f"{job} is decided up to {cursor:%Y-%m-%d %H:%M} UTC: the clock was ahead while it ran"
        mend = "nothing of it is due until then: restore a backup from before (`promptd db restore`), or wait"
        yield Finding.fault(name, seen, mend)
    if not ahead and (last is None or last <= now + A_LITTLE):
        yield Finding.ok(
            name, f"the newest row is of {last:%Y-%m-%d %H:%M:%S} UTC" if last else "no rows yet"
        )


def system_zone_data(directories: Sequence[str]) -> str | None:
    """Return the version of the system's zone data; "" where it has some and no version, None without any."""
    for directory in map(Path, directories):
        if not (directory / "UTC").exists():
            continue
        try:
            with (directory / "tzdata.zi").open() as file:
                return file.readline().removeprefix("# version").strip()
        except OSError:
            return ""
    return None


def zone_data(system: str | None, package: str | None) -> Finding:
    """Judge the age of the zone data: Python takes the system's before that of the package `tzdata`."""
    name = "zone data"
    match system, package:
        case None, None:
            return Finding.fault(name, "there is none", "install the package tzdata")
        case None, _:
            return Finding.ok(name, f"{package}, of the Python package tzdata")
        case "", _:
            return Finding.unknown(name, f"the system's, of an unknown version; the package has {package}")
        case _, None:
            return Finding.ok(name, f"{system}, of the system")
    assert system is not None
    assert package is not None
    if system < package:
        seen = f"the system's {system} is used, though the Python package tzdata has {package}"
        mend = "update the system's tzdata; with PYTHONTZPATH= in the unit the package's is used"
        return Finding.warning(name, seen, mend)
    return Finding.ok(name, f"{system}, of the system")


def zones(names: Iterable[str], load: Callable[[str], object] = ZoneInfo.no_cache) -> Iterator[Finding]:
    """Judge whether each zone can still be read."""
    names = sorted(set(names))
    gone = []
    for name in names:
        try:
            load(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            gone.append(name)
    if gone:
        mend = "install the package tzdata, or name other zones"
        yield Finding.fault("zones", f"cannot be read: {', '.join(gone)}", mend)
    else:
        yield Finding.ok("zones", ", ".join(names))
