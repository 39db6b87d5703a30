"""Which ping an event means: in the manner of Healthchecks."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from jobs.delivery.heartbeat import Ping, Signal, address, ping_of, run_uuid
from jobs.errors import ErrorClass
from jobs.events import Event, JobReleased, RunClaimed, RunDecided, RunFinished, RunRecovered, RunStarted
from jobs.run import ClaimedRun, Outcome, Reason, Served, Trigger
from jobs.secret import Secret

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
RUN = ClaimedRun(42, "digest", NOW, Trigger.SCHEDULE, tries=1)
GOOD = Outcome.succeeded("an answer about Project X", served=Served("zai", "glm-5", "main"))
BAD = Outcome.failed(ErrorClass.AUTH, "the key of Project X is refused")
SILENT = replace(GOOD, silent=True)


def ended(outcome: Outcome) -> RunFinished:
    """Return the end of a run."""
    return RunFinished(RUN, outcome, 1.0)


def signal(event: Event) -> Signal | None:
    """Return what an event's ping says."""
    ping = ping_of(event)
    return ping.signal if ping else None


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (RunStarted(RUN, 0.0), Signal.START),
        (ended(GOOD), Signal.SUCCESS),
        (ended(SILENT), Signal.SUCCESS),
        (ended(Outcome.skipped(Reason.CONDITION)), Signal.SUCCESS),
        (ended(BAD), Signal.FAIL),
        (ended(Outcome.failed(Reason.GATHER, "no output")), Signal.FAIL),
        (ended(Outcome.timed_out("too long")), Signal.FAIL),
        (RunRecovered(RUN, Outcome.abandoned()), Signal.FAIL),
        (RunRecovered(RUN, GOOD), Signal.SUCCESS),
    ],
)
def test_a_run_that_begins_and_one_that_ends_ping(event: Event, said: Signal) -> None:
    assert signal(event) is said


@pytest.mark.parametrize(
    "event",
    [
        ended(Outcome.cancelled(Reason.OPERATOR)),
        ended(Outcome.skipped(Reason.BUDGET)),
        RunDecided("digest", NOW, "missed", "late", 1),
        RunDecided("digest", NOW, "skipped", "paused", 1),
        RunClaimed(RUN, 0.0),
        RunStarted(replace(RUN, tries=2), 0.0),
        JobReleased("digest"),
    ],
)
def test_what_did_no_work_pings_nothing_and_the_switch_notices(event: Event) -> None:
    """Another try of a run has begun before."""
    assert ping_of(event) is None


@pytest.mark.parametrize("trigger", list(Trigger))
def test_drills_and_questions_are_no_sign_of_life(trigger: Trigger) -> None:
    run = replace(RUN, trigger=trigger)
    silent = trigger in (Trigger.DRILL, Trigger.ASK)
    assert (ping_of(RunStarted(run, 0.0)) is None) is silent
    assert (ping_of(RunFinished(run, BAD, 1.0)) is None) is silent


def test_all_pings_of_one_run_have_one_rid_and_those_of_another_have_another() -> None:
    """In whichever process: a run may be recovered by another one than began it."""
    begun, over = ping_of(RunStarted(RUN, 0.0)), ping_of(RunRecovered(replace(RUN, tries=3), BAD))
    assert begun is not None
    assert over is not None
    assert begun.rid == over.rid == run_uuid(RUN)
    assert str(UUID(str(begun.rid))) == str(begun.rid)
    assert run_uuid(replace(RUN, id=43)) != begun.rid != run_uuid(replace(RUN, job="report"))


@pytest.mark.parametrize("event", [RunStarted(RUN, 0.0), ended(GOOD), ended(BAD)])
def test_nothing_that_was_asked_or_answered_goes_along(event: Event) -> None:
    ping = ping_of(event)
    assert isinstance(ping, Ping)
    assert "Project X" not in ping.words
    assert "run 42" in ping.words


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://hc.example/uuid", "https://hc.example/uuid/fail"),
        ("https://hc.example/uuid/", "https://hc.example/uuid/fail"),
        ("https://hc.example/key/slug?create=1", "https://hc.example/key/slug/fail?create=1"),
    ],
)
def test_a_signal_goes_behind_the_path_and_what_a_url_asks_for_stays(url: str, sent: str) -> None:
    assert address(Secret(url), Signal.FAIL).reveal() == sent
    assert address(Secret(url), Signal.SUCCESS).reveal() == url
