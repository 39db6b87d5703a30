"""The life of a run's row: the fence, final rows, the CHECKs, and what a dead process leaves behind."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError
from support.claiming import HOURLY, claim
from support.ledger import HOUR, MINUTE, NOW, SECOND, key_of, make_instance, target_of

from jobs.attempt import AttemptOutcome, Purpose, Wait
from jobs.errors import ErrorClass, FenceLost
from jobs.run import (
    Bounds,
    ClaimedRun,
    Concurrency,
    Consequences,
    Outcome,
    PaidAnswer,
    Reason,
    Served,
    Trigger,
)
from jobs.store import attempts, credentials, instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Place
from jobs.store.claims import NewRun
from jobs.store.recovery import OnGone, Recovered, recover
from jobs.store.tables import attempts as attempt_table
from jobs.store.tables import runs as table

ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))
AGAIN = Outcome.again(ErrorClass.OVERLOADED, "try later", not_before=NOW + HOUR)
PAID = PaidAnswer(0, 1, "hello", truncated=False, served=Served("zai", "glm-5", "key"), fallback=False)
ENDINGS = {
    "succeeded": ANSWER,
    "failed": Outcome.failed(ErrorClass.AUTH, "refused"),
    "timed_out": Outcome.timed_out("no answer"),
    "cancelled": Outcome.cancelled(Reason.OPERATOR),
}


def pausing(_job: str) -> Consequences:
    """Return what pauses a job after its first failure."""
    return Consequences(pause_after_failures=1)


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance."""
    return make_instance(db)


def queue(
    db: Connection, instance: int, trigger: Trigger = Trigger.SCHEDULE, *, minutes: int = 0
) -> ClaimedRun:
    """Return a queued run of the job `digest`."""
    if trigger in (Trigger.SCHEDULE, Trigger.CATCH_UP):
        (run,) = claim(db, instance, NewRun("digest", NOW + minutes * MINUTE, trigger)).ours
        return run
    job_verbs.see_one(db, "digest", HOURLY, now=NOW)
    return runs.add(db, job="digest", trigger=trigger, instance_id=instance, now=NOW)


def start(db: Connection, instance: int, trigger: Trigger = Trigger.SCHEDULE) -> ClaimedRun:
    """Return a running run, with the number of its try."""
    return begin(db, instance, queue(db, instance, trigger))


def begin(db: Connection, instance: int, run: ClaimedRun, *, now: datetime = NOW) -> ClaimedRun:
    """Start a run's next try."""
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=now)


def send(db: Connection, run: ClaimedRun, purpose: Purpose = Purpose.MAIN) -> int:
    """Commit a request of the run as sent."""
    credentials.ensure(db, key_of(), ("f1",), now=NOW)
    place = Place(run.id, run.tries, purpose, 0)
    return attempts.insert_sent(
        db, place, target_of(), key_of(), base_url=target_of().base_url, wait=Wait(), now=NOW
    )


def row_of(db: Connection, run: ClaimedRun) -> Any:
    """Return the run's row."""
    return db.execute(select(table).where(table.c.id == run.id)).one()


@pytest.mark.parametrize("outcome", ENDINGS.values(), ids=ENDINGS)
def test_a_running_run_ends_as_its_outcome_says(db: Connection, instance: int, outcome: Outcome) -> None:
    """One statement writes it all."""
    run = start(db, instance)

    runs.finish(db, run, outcome, now=NOW + SECOND)

    row = row_of(db, run)
    assert (row.state, row.reason, row.finished_at) == (outcome.state, outcome.reason, NOW + SECOND)
    assert (row.error_class, row.error_message, row.output) == (
        outcome.error_class,
        outcome.message,
        outcome.output,
    )


@pytest.mark.parametrize("tries", [0, 2])
def test_the_end_of_another_try_is_refused_and_changes_nothing(
    db: Connection, instance: int, tries: int
) -> None:
    """The number of the try is the fence."""
    run = start(db, instance)
    attempt_id = send(db, run)
    before = row_of(db, run)

    with pytest.raises(FenceLost), db.begin_nested():
        runs.finish(db, replace(run, tries=tries), ENDINGS["failed"], now=NOW + SECOND)

    assert row_of(db, run) == before
    sent = db.execute(select(attempt_table.c.outcome).where(attempt_table.c.id == attempt_id)).scalar_one()
    assert sent == AttemptOutcome.SENT


@pytest.mark.parametrize("first", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("second", ENDINGS.values(), ids=ENDINGS)
def test_a_final_row_never_changes(db: Connection, instance: int, first: Outcome, second: Outcome) -> None:
    """No verb touches it again."""
    run = start(db, instance)
    runs.finish(db, run, first, now=NOW + SECOND)
    before = row_of(db, run)

    for verb in (
        lambda: runs.finish(db, run, second, now=NOW + MINUTE),
        lambda: runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW + MINUTE),
        lambda: runs.requeue(db, run, AGAIN, not_before=NOW + HOUR, now=NOW + MINUTE),
        lambda: runs.keep_prompt(db, run, "another prompt"),
        lambda: runs.keep_shortened(db, run, 9, 1),
        lambda: send(db, replace(run, tries=run.tries + 1)),
    ):
        with pytest.raises(FenceLost), db.begin_nested():
            verb()
    assert not runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW + MINUTE)
    assert not runs.request_cancel(db, run.id, Reason.OPERATOR)
    runs.keep_answer(db, replace(PAID, run_id=run.id, tries=run.tries))
    instances.stop(db, instance, now=NOW + MINUTE)
    rerun = OnGone(rerun=["digest"], consequences=pausing)
    assert recover(db, instance_id=make_instance(db), now=NOW + MINUTE, on_gone=rerun) == Recovered()
    replacing = Bounds(Concurrency.REPLACE)
    claim(db, instance, NewRun("digest", NOW + MINUTE, Trigger.SCHEDULE), bounds=replacing)

    assert row_of(db, run) == before


def test_a_success_gets_a_title_once_and_nothing_else_of_its_row_changes(
    db: Connection, instance: int
) -> None:
    """Another try's title, and a second one, come too late."""
    run = start(db, instance)
    runs.finish(db, run, ANSWER, now=NOW + SECOND)
    before = row_of(db, run)._asdict()
    runs.give_title(db, replace(run, tries=2), "of another try", now=NOW)
    assert row_of(db, run)._asdict() == before

    for title in (None, "the first", "the second"):
        runs.give_title(db, run, title, now=NOW)

    assert row_of(db, run)._asdict() == {**before, "title": "the first"}


@pytest.mark.parametrize("name", ["failed", "timed_out", "cancelled"])
def test_what_did_not_succeed_gets_no_title(db: Connection, instance: int, name: str) -> None:
    run = start(db, instance)
    runs.finish(db, run, ENDINGS[name], now=NOW + SECOND)
    before = row_of(db, run)

    runs.give_title(db, run, "a title", now=NOW)

    assert row_of(db, run) == before


def test_what_was_sent_for_a_title_counts_for_the_run_and_is_heard_of_no_more_when_nobody_answered(
    db: Connection, instance: int
) -> None:
    run = start(db, instance)
    runs.finish(db, run, ANSWER, now=NOW + SECOND)
    answered, _silent = send(db, run, Purpose.TITLE), send(db, run, Purpose.TITLE)
    spent = {"outcome": "succeeded", "input_tokens": 7, "output_tokens": 3}
    db.execute(update(attempt_table).where(attempt_table.c.id == answered).values(**spent))

    runs.give_title(db, run, "a title", now=NOW)

    outcomes = list(db.execute(select(attempt_table.c.outcome).order_by(attempt_table.c.id)).scalars())
    assert outcomes == [AttemptOutcome.SUCCEEDED, AttemptOutcome.UNKNOWN]
    assert (row_of(db, run).input_tokens, row_of(db, run).output_tokens) == (7, 3)


def test_a_queued_run_is_started_once(db: Connection, instance: int) -> None:
    """The second worker loses."""
    run = start(db, instance)

    with pytest.raises(FenceLost):
        runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def test_a_run_that_failed_hears_no_more_of_what_it_sent(db: Connection, instance: int) -> None:
    """A request without an answer may have been paid."""
    run = start(db, instance)
    send(db, run)

    runs.finish(db, run, ENDINGS["timed_out"], now=NOW + SECOND)

    assert db.execute(select(attempt_table.c.outcome)).scalar_one() == AttemptOutcome.UNKNOWN


def test_failures_in_a_row_are_those_of_scheduled_runs(db: Connection, instance: int) -> None:
    """A success ends the row; what somebody runs by hand counts for nothing."""

    def failures() -> int:
        return job_verbs.states(db)["digest"].consecutive_failures

    runs.finish(db, start(db, instance), ENDINGS["failed"], now=NOW)
    runs.finish(db, start(db, instance, Trigger.MANUAL), ENDINGS["failed"], now=NOW)
    assert failures() == 1

    runs.finish(db, begin(db, instance, queue(db, instance, minutes=1)), ANSWER, now=NOW)
    assert failures() == 0


WRONG_ROWS: dict[str, dict[str, Any]] = {
    "final_is_finished": {"state": "failed"},
    "final_is_finished-2": {"state": "queued", "finished_at": NOW},
    "running_is_started": {"state": "running", "tries": 1},
    "running_is_started-2": {"state": "running", "started_at": NOW},
    "succeeded_has_answer": {"state": "succeeded", "finished_at": NOW, "served_provider": "zai"},
    "succeeded_has_answer-2": {
        "state": "succeeded", "finished_at": NOW, "served_provider": "zai", "output": "",
    },
    "succeeded_has_answer-3": {"state": "succeeded", "finished_at": NOW, "output": "hello"},
    "span_is_whole": {"state": "missed", "finished_at": NOW, "span_count": 2},
    "span_is_whole-2": {"state": "missed", "finished_at": NOW, "span_first": NOW},
    "span_never_ran": {"state": "failed", "finished_at": NOW, "span_first": NOW, "span_count": 2},
    "state_known": {"state": "asleep"},
    "trigger_known": {"state": "queued", "trigger": "whim"},
    "error_class_known": {"state": "failed", "finished_at": NOW, "error_class": "bad_luck"},
    "fallback_reason_known": {"state": "queued", "fallback_reason": "bad_luck"},
}  # fmt: skip


@pytest.mark.parametrize("check", WRONG_ROWS)
def test_an_illegal_state_cannot_be_written(db: Connection, check: str) -> None:
    """The table's CHECKs say which states there are."""
    usual = {"job": "digest", "scheduled_for": NOW, "trigger": "schedule", "created_at": NOW}

    with pytest.raises(IntegrityError, match=check.partition("-")[0]), db.begin_nested():
        db.execute(insert(table).values({**usual, **WRONG_ROWS[check]}))


def test_so_many_failures_in_a_row_pause_a_job_in_the_transaction_that_counts_them(
    db: Connection, instance: int
) -> None:
    """The one more is not started; a resume forgets them."""
    most = Consequences(pause_after_failures=2)
    paused = [
        runs.finish(
            db, begin(db, instance, queue(db, instance, minutes=number)), ENDINGS["failed"], now=NOW,
            consequences=most,
        ).paused
        for number in range(2)
    ]  # fmt: skip
    assert paused == [None, "2 failed runs in a row"]
    assert job_verbs.states(db)["digest"].paused_at == NOW

    job_verbs.resume(db, "digest", now=NOW)
    later = begin(db, instance, queue(db, instance, minutes=2))
    assert runs.finish(db, later, ENDINGS["failed"], now=NOW, consequences=most).paused is None


@pytest.mark.parametrize("name", ["succeeded", "cancelled"])
def test_what_is_no_failure_pauses_nothing(db: Connection, instance: int, name: str) -> None:
    run = start(db, instance)

    ended = runs.finish(db, run, ENDINGS[name], now=NOW, consequences=Consequences(pause_after_failures=1))

    assert ended.paused is None


def test_a_run_waits_between_its_tries_with_what_the_last_one_failed_of(
    db: Connection, instance: int
) -> None:
    """Its next try forgets that; the time of its first one stays."""
    run = start(db, instance)
    send(db, run)

    waiting = runs.requeue(db, run, AGAIN, not_before=NOW + HOUR, now=NOW + SECOND)

    assert waiting is not None
    row = row_of(db, run)
    assert (row.state, row.error_class, row.not_before, row.finished_at) == (
        "queued", "overloaded", NOW + HOUR, None,
    )  # fmt: skip
    assert db.execute(select(attempt_table.c.outcome)).scalar_one() == AttemptOutcome.UNKNOWN
    again = begin(db, instance, waiting, now=NOW + HOUR)
    row = row_of(db, run)
    assert (again.tries, again.started_at, again.not_before) == (2, NOW, None)
    assert (row.error_class, row.reason, row.not_before) == (None, None, None)


def test_another_try_of_a_run_that_was_taken_over_is_refused(db: Connection, instance: int) -> None:
    run = start(db, instance)
    runs.requeue(db, run, AGAIN, not_before=NOW, now=NOW)
    begin(db, instance, run)

    with pytest.raises(FenceLost), db.begin_nested():
        runs.requeue(db, run, AGAIN, not_before=NOW, now=NOW)


def test_a_run_whose_end_was_asked_for_has_no_other_try(db: Connection, instance: int) -> None:
    """It ends when this one does."""
    run = start(db, instance)
    assert runs.request_cancel(db, run.id, Reason.REPLACED)
    assert runs.to_be_cancelled(db, instance) == {run.id: Reason.REPLACED}

    assert runs.requeue(db, run, AGAIN, not_before=NOW + HOUR, now=NOW) is None

    assert (row_of(db, run).state, row_of(db, run).reason) == ("cancelled", "replaced")
    assert runs.to_be_cancelled(db, instance) == {}


def test_only_a_running_run_can_be_asked_to_end(db: Connection, instance: int) -> None:
    """What waits is ended at once, by whoever wants that."""
    run = queue(db, instance)

    assert not runs.request_cancel(db, run.id, Reason.OPERATOR)
    assert runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW)
    assert not runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW)


def test_a_refresh_that_comes_after_the_end_of_its_run_stands_for_itself(
    db: Connection, instance: int
) -> None:
    """Others may wait for it: a login is not of one run."""
    run = start(db, instance)
    runs.finish(db, run, ENDINGS["timed_out"], now=NOW)

    sent = send(db, run, Purpose.REFRESH)

    query = select(attempt_table.c.run_id, attempt_table.c.purpose).where(attempt_table.c.id == sent)
    assert tuple(db.execute(query).one()) == (None, "refresh")


def test_an_answer_of_another_try_is_not_written_down(db: Connection, instance: int) -> None:
    run = start(db, instance)
    before = row_of(db, run)

    runs.keep_answer(db, replace(PAID, run_id=run.id, tries=run.tries + 1))

    assert row_of(db, run) == before
