"""How long the tries of a run may take, and whether another one follows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs import tries
from jobs.budget import day_begins, within
from jobs.definition import Job, Retry
from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.request import ApiMode, Parameters
from jobs.run import ClaimedRun, Hold, Outcome, Reason, RunState, Served, Trigger
from jobs.target import Target

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RETRY = Retry(2, (MINUTE, 5 * MINUTE), frozenset({ErrorClass.SERVER_ERROR}))
TARGET = Target(ProviderName("zai"), "m", "http://localhost/v1", ApiMode.CHAT_COMPLETIONS)
JOB = Job(name="digest", prompt="hi", chain=(TARGET,), retry=RETRY, timeout=10 * MINUTE)
RUN = ClaimedRun(1, "digest", NOW, Trigger.SCHEDULE, tries=1, started_at=NOW)
FAILED = Outcome.failed(ErrorClass.SERVER_ERROR, "500")


def test_a_failed_chain_is_tried_again_after_each_delay_and_max_times() -> None:
    again = [tries.settled(replace(RUN, tries=n), JOB, FAILED, now=NOW) for n in (1, 2, 3)]

    assert [each.state for each in again] == [RunState.QUEUED, RunState.QUEUED, RunState.FAILED]
    assert [each.not_before for each in again] == [NOW + MINUTE, NOW + 5 * MINUTE, None]
    assert (again[0].reason, again[0].message) == ("server_error", "500")


def test_tries_that_crashes_have_added_cost_none_of_the_jobs() -> None:
    crashed = replace(RUN, crashes=2)
    again = [tries.settled(replace(crashed, tries=n), JOB, FAILED, now=NOW) for n in (3, 4, 5)]

    assert [each.not_before for each in again] == [NOW + MINUTE, NOW + 5 * MINUTE, None]


def test_the_last_delay_is_that_of_all_tries_after_it() -> None:
    retry = replace(RETRY, max=9)

    assert [retry.delay(number) for number in (1, 2, 3, 9)] == [MINUTE, *[5 * MINUTE] * 3]


HELD = Outcome.failed(ErrorClass.SERVER_ERROR, "closed", hold=Hold(NOW, "zai/key", "closed"))


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.failed(ErrorClass.AUTH, "a class that the job does not name"),
        Outcome.failed(Reason.GATHER, "no chain was asked"),
        HELD,
        Outcome.timed_out("no time is left"),
        Outcome.cancelled(Reason.OPERATOR),
        Outcome.skipped(),
        Outcome.succeeded("yes", served=Served("zai", "m", "key")),
    ],
)
def test_nothing_but_a_failed_chain_is_tried_again(outcome: Outcome) -> None:
    assert tries.settled(RUN, JOB, outcome, now=NOW) is outcome


def test_a_drill_is_tried_once() -> None:
    assert tries.settled(replace(RUN, trigger=Trigger.DRILL), JOB, FAILED, now=NOW) is FAILED


@pytest.mark.parametrize(("minutes", "state"), [(8, RunState.QUEUED), (9, RunState.FAILED)])
def test_no_try_is_waited_for_past_the_timeout_of_the_whole_run(minutes: int, state: RunState) -> None:
    now = NOW + minutes * MINUTE

    assert tries.settled(RUN, JOB, FAILED, now=now).state is state


def test_the_timeout_counts_from_the_first_try_whichever_way_the_clock_is_set() -> None:
    left = [tries.time_left(RUN, JOB, now=NOW + n * MINUTE) for n in (0, 7, 10, 600, -600)]

    assert left == [10 * MINUTE, 3 * MINUTE, timedelta(), timedelta(), 10 * MINUTE]


def test_a_day_begins_at_midnight_in_the_zone_of_the_job() -> None:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - for this test alone

    assert day_begins(NOW, ZoneInfo("Europe/Berlin")) == datetime(2026, 9, 3, 22, tzinfo=UTC)
    assert day_begins(NOW, ZoneInfo("Asia/Tokyo")) == datetime(2026, 9, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize(("own", "most"), [(None, 70), (50, 50), (90, 70)])
def test_what_is_left_of_a_budget_bounds_the_answer(own: int | None, most: int) -> None:
    job = replace(JOB, parameters=Parameters(max_output_tokens=own, seed=1))

    assert within(job, 70).parameters == Parameters(max_output_tokens=most, seed=1)
