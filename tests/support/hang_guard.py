"""A guard for what would go on for minutes if it were wrong: it bounds a hang, and measures nothing."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

LONGEST = 60.0  # seconds


@contextmanager
def ends() -> Iterator[None]:
    """Fail a block that does not end within a minute of this process's processor time.

    What is right takes about a second, what is wrong many minutes: nobody asks where in between it was. Only
    the main thread has guards, one at a time (setitimer(2), ITIMER_PROF). Python looks at signals between two
    instructions, and its regular expressions now and then.
    """

    def give_up(*_: object) -> NoReturn:
        pytest.fail(f"it has not ended after {LONGEST:g} s of processor time, and would go on for minutes")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def wait_ends() -> asyncio.Timeout:
    """Fail a block of a coroutine that waits for a minute: for what never comes, it would do so for ever."""
    return asyncio.timeout(LONGEST)
