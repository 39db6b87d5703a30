"""Loads for schedulers: 10,000 six-field cron lines each (the first field is the second)."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

JOBS = 10_000
TWICE = 2_000  # 8,000 once and 2,000 twice a minute are 200 a second


def steady(_base: datetime) -> Iterator[str]:
    """200 of them are due in every second."""
    for number in range(JOBS):
        second = number % 60
        seconds = f"{second},{(second + 30) % 60}" if number < TWICE else str(second)
        yield f"{seconds} * * * * *"


def idle(base: datetime) -> Iterator[str]:
    """One of them is due in every second, the others once a day, half a day away."""
    yield "* * * * * *"
    for number in range(1, JOBS):
        yield f"0 {number % 60} {(base.hour + 12) % 24} * * *"


def together(base: datetime) -> Iterator[str]:
    """All of them are due in one second, once in an hour."""
    for _ in range(JOBS):
        yield f"{base.second} {base.minute} * * * *"


LINES: Mapping[str, Callable[[datetime], Iterator[str]]] = {
    "steady": steady,
    "idle": idle,
    "together": together,
}
