"""Runs that cannot begin yet: kept until their time has come, or until the run before them has ended."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from jobs import clock
from jobs.run import ClaimedRun, Trigger
from scheduler.later import Later

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int, job: str = "job", *, not_before: datetime | None = None) -> ClaimedRun:
    return ClaimedRun(number, job, NOW, Trigger.SCHEDULE, not_before=not_before)


@pytest.fixture
def handed() -> list[int]:
    """Return the numbers of the runs that were handed over."""
    return []


@pytest.fixture
def later(handed: list[int]) -> Later:
    def submit(runs: Iterable[ClaimedRun]) -> None:
        handed.extend(each.id for each in runs)

    return Later(submit)


def test_a_run_without_a_time_goes_on_at_once(later: Later, handed: list[int]) -> None:
    later.put([run(1)])

    assert (handed, len(later)) == ([1], 0)


def test_a_run_waits_for_the_time_of_its_next_try(later: Later, handed: list[int]) -> None:
    soon = clock.utcnow() + timedelta(hours=1)
    later.put([run(1, not_before=soon)])

    later.tick(soon - timedelta(seconds=1))
    assert handed == []
    later.tick(soon)
    later.tick(soon)
    assert handed == [1]


def test_a_clock_that_was_set_back_makes_nobody_wait_longer(later: Later, handed: list[int]) -> None:
    """The wait is counted twice, by the calendar and by elapsed time; whichever ends first."""
    later.put([run(1, not_before=clock.utcnow())])

    later.tick(NOW - timedelta(days=3650))

    assert handed == [1]


def test_the_first_that_is_behind_goes_on_when_a_run_of_its_job_has_ended(
    later: Later, handed: list[int]
) -> None:
    for each in (run(3), run(2), run(4, "other")):
        later.park(each)

    later.ended("job")
    assert handed == [2]
    later.ended("job")
    assert handed == [2, 3]
    later.ended("job")
    assert (handed, len(later)) == ([2, 3], 1)


def test_what_ended_in_another_process_is_found_by_looking_again(later: Later, handed: list[int]) -> None:
    for each in (run(3), run(2), run(4, "other")):
        later.park(each)

    later.look_again()

    assert (sorted(handed), len(later)) == ([2, 4], 1)


def test_a_run_that_was_cancelled_is_dropped(later: Later, handed: list[int]) -> None:
    later.put([run(1, not_before=clock.utcnow())])
    later.park(run(2))

    assert (later.forget(1), later.forget(2), later.forget(3)) == (True, True, False)
    later.tick(clock.utcnow())
    later.look_again()
    assert handed == []
