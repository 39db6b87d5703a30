"""The only place that asks what time it is."""

import time
from datetime import UTC, datetime, timedelta


def utcnow() -> datetime:
    """Return the wall clock as an aware UTC datetime with microseconds."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds of a clock that never steps; only differences mean something."""
    return time.monotonic()


def seconds(duration: timedelta) -> float:
    """Return a duration in seconds, the unit of every figure that leaves the program."""
    return duration.total_seconds()
