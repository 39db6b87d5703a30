"""Regular files that nobody can open for a while, as on a network disk that gives no answer."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hung(*paths: Path) -> Iterator[None]:
    """Have whoever opens these files wait: somebody holds leases on them (fcntl(2), F_SETLEASE).

    The kernel breaks a lease after /proc/sys/fs/lease-break-time, 45 seconds. It asks with SIGIO.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    leased = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths]
    try:
        for descriptor in leased:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        for descriptor in leased:
            os.close(descriptor)
        signal.signal(signal.SIGIO, before)
