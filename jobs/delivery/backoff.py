"""When a delivery that has failed is tried again, and when no more: pure."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from jobs.errors import Undeliverable
from jobs.store.deliveries import TITLE_WAIT, Verdict

WAITS = tuple(
    timedelta(seconds=each) for each in (10, 30, 120, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800)
)
"""How long is waited after the first failure, the second, and so on."""

MOST_FAILURES = 10
LONGEST_ASKED = timedelta(hours=24)
_JITTER = 0.1


def verdict_of(
    refused: Undeliverable, why: str, *, failures: int, now: datetime, waits: Sequence[timedelta] = WAITS
) -> Verdict:
    """Return what becomes of a delivery that has failed so often, this time included; `why` is kept.

    What the other side asks for is granted where it is longer than ours, up to a day.
    """
    if refused.permanent or failures >= MOST_FAILURES:
        return Verdict.failed(why)
    wait = waits[min(failures, len(waits)) - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
    asked = min(refused.retry_after or timedelta(), LONGEST_ASKED)
    return Verdict.retried(why, again_at=now + max(wait, asked))


def longest_waits(waits: Sequence[timedelta] = WAITS) -> tuple[timedelta, ...]:
    """Return how long anything waits of our own accord, by how often it has failed; first: not at all yet."""
    return (TITLE_WAIT, *(each * (1 + _JITTER) for each in waits))
