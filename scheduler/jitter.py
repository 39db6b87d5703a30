"""Jitter: by how much later than its instant a run begins, so that jobs of one minute do not come at once."""

from datetime import datetime, timedelta
from hashlib import blake2b

from scheduler.instants import second_of

_MILLISECOND = timedelta(milliseconds=1)
_BYTES = 8


def delay(job: str, instant: datetime, *, limit: timedelta) -> timedelta:
    """Return whole milliseconds, fewer than `limit`: always the same for one job and instant, anywhere.

    The share of the limit is 64 bits of BLAKE2b over the job's name and the instant.
    """
    said = f"{job}\0{second_of(instant)}".encode()
    share = int.from_bytes(blake2b(said, digest_size=_BYTES).digest(), "big")
    return (max(limit // _MILLISECOND, 0) * share >> 8 * _BYTES) * _MILLISECOND
