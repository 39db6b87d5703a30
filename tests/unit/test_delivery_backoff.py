"""When a failed delivery is tried again: later each time, as late as it is asked to be, and not for ever."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.delivery.backoff import LONGEST_ASKED, MOST_FAILURES, WAITS, longest_waits, verdict_of
from jobs.delivery_state import DeliveryState
from jobs.errors import Undeliverable

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BUSY = Undeliverable("busy")


@pytest.mark.parametrize("failures", range(1, MOST_FAILURES))
def test_each_failure_waits_for_its_own_time_give_or_take_a_tenth(failures: int) -> None:
    verdict = verdict_of(BUSY, "busy", failures=failures, now=NOW)

    assert (verdict.state, verdict.why) == (DeliveryState.PENDING, "busy")
    assert verdict.again_at is not None
    assert 0.9 * WAITS[failures - 1] <= verdict.again_at - NOW <= 1.1 * WAITS[failures - 1]


def test_waits_differ_so_that_what_failed_together_does_not_come_back_together() -> None:
    found = {verdict_of(BUSY, "busy", failures=1, now=NOW).again_at for _ in range(20)}

    assert len(found) > 1


def test_the_last_failure_is_for_good() -> None:
    assert verdict_of(BUSY, "busy", failures=MOST_FAILURES, now=NOW).state is DeliveryState.FAILED


def test_what_cannot_help_is_not_tried_again() -> None:
    gone = Undeliverable("gone", permanent=True, retry_after=timedelta(hours=1))

    assert verdict_of(gone, "gone", failures=1, now=NOW).state is DeliveryState.FAILED


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(timedelta(hours=3), timedelta(hours=3)), (timedelta(days=9), LONGEST_ASKED)],
    ids=["hours", "days"],
)
def test_a_receiver_is_left_alone_for_as_long_as_it_asks_up_to_a_day(
    asked: timedelta, waited: timedelta
) -> None:
    verdict = verdict_of(Undeliverable("busy", retry_after=asked), "busy", failures=1, now=NOW)

    assert verdict.again_at == NOW + waited


def test_a_receiver_that_asks_for_less_gets_our_own_wait() -> None:
    hasty = Undeliverable("busy", retry_after=timedelta(seconds=1))
    verdict = verdict_of(hasty, "busy", failures=4, now=NOW)

    assert verdict.again_at is not None
    assert verdict.again_at - NOW >= 0.9 * WAITS[3]


def test_nothing_waits_longer_of_our_own_accord_than_is_said() -> None:
    longest = longest_waits()

    for failures in range(1, MOST_FAILURES):
        again_at = verdict_of(BUSY, "busy", failures=failures, now=NOW).again_at
        assert again_at is not None
        assert again_at - NOW <= longest[failures]
