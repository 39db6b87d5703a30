"""The life of a run's row: the fence, final rows, the CHECKs, and what a dead process leaves behind."""

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
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
    Follower,
    Outcome,
    PaidAnswer,
    Reason,
    RunState,
    Served,
    Trigger,
)
from jobs.store import attempts, credentials, instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Place
from jobs.store.claims import NewRun
from jobs.store.instances import GONE_AFTER
from jobs.store.recovery import MOST_TRIES_THROUGH_CRASHES, OnGone, Recovered, recover
from jobs.store.tables import attempts as attempt_table
from jobs.store.tables import instances as instance_table
from jobs.store.tables import runs as table

ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))
AGAIN = Outcome.again(ErrorClass.OVERLOADED, "try later", not_before=NOW + HOUR)
ENDINGS = {
    "succeeded": ANSWER,
    "failed": Outcome.failed(ErrorClass.AUTH, "refused"),
    "timed_out": Outcome.timed_out("no answer"),
    "cancelled": Outcome.cancelled(Reason.OPERATOR),
}


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
    runs.give_title(db, replace(run, tries=2), "of another try")
    assert row_of(db, run)._asdict() == before

    for title in (None, "the first", "the second"):
        runs.give_title(db, run, title)

    assert row_of(db, run)._asdict() == {**before, "title": "the first"}


@pytest.mark.parametrize("name", ["failed", "timed_out", "cancelled"])
def test_what_did_not_succeed_gets_no_title(db: Connection, instance: int, name: str) -> None:
    run = start(db, instance)
    runs.finish(db, run, ENDINGS[name], now=NOW + SECOND)
    before = row_of(db, run)

    runs.give_title(db, run, "a title")

    assert row_of(db, run) == before


def test_what_was_sent_for_a_title_counts_for_the_run_and_is_heard_of_no_more_when_nobody_answered(
    db: Connection, instance: int
) -> None:
    run = start(db, instance)
    runs.finish(db, run, ANSWER, now=NOW + SECOND)
    answered, _silent = send(db, run, Purpose.TITLE), send(db, run, Purpose.TITLE)
    spent = {"outcome": "succeeded", "input_tokens": 7, "output_tokens": 3}
    db.execute(update(attempt_table).where(attempt_table.c.id == answered).values(**spent))

    runs.give_title(db, run, "a title")

    outcomes = list(db.execute(select(attempt_table.c.outcome).order_by(attempt_table.c.id)).scalars())
    assert outcomes == [AttemptOutcome.SUCCEEDED, AttemptOutcome.UNKNOWN]
    assert (row_of(db, run).input_tokens, row_of(db, run).output_tokens) == (7, 3)


def test_what_a_process_had_sent_for_a_title_is_settled_when_it_is_gone_and_the_success_stays(
    db: Connection, instance: int
) -> None:
    """A living process goes on waiting for its answer."""
    dead = start(db, of_a_dead_process(db))
    runs.finish(db, dead, ANSWER, now=NOW + SECOND)
    living = start(db, instance, Trigger.MANUAL)
    runs.finish(db, living, ANSWER, now=NOW + SECOND)
    send(db, dead, Purpose.TITLE)
    send(db, living, Purpose.TITLE)
    before = row_of(db, dead)

    recover(db, instance_id=instance, now=NOW + MINUTE)

    outcomes = list(db.execute(select(attempt_table.c.outcome).order_by(attempt_table.c.id)).scalars())
    assert outcomes == [AttemptOutcome.UNKNOWN, AttemptOutcome.SENT]
    assert row_of(db, dead) == before


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


def of_a_dead_process(db: Connection) -> int:
    """Return the instance of a process that has worked here and is gone."""
    words = "import os; print(os.getpid(), open('/proc/self/stat').read().rpartition(')')[2].split()[19])"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    pid, ticks = said.split()
    dead = make_instance(db)
    boot = instances.process_start(1).partition(":")[0]
    started = f"{boot}:{ticks}"
    db.execute(
        update(instance_table).where(instance_table.c.id == dead).values(pid=int(pid), pid_started=started)
    )
    return dead


def test_what_a_dead_process_was_running_is_abandoned(db: Connection, instance: int) -> None:
    """Its call may have been paid: it is not run again, and its request stays unknown."""
    run = start(db, of_a_dead_process(db))
    send(db, run)

    assert recover(db, instance_id=instance, now=NOW + SECOND).ours == ()

    row = row_of(db, run)
    assert (row.state, row.reason, row.finished_at) == ("abandoned", "process_gone", NOW + SECOND)
    assert db.execute(select(attempt_table.c.outcome)).scalar_one() == AttemptOutcome.UNKNOWN
    assert job_verbs.states(db)["digest"].consecutive_failures == 1
    with pytest.raises(FenceLost):
        runs.finish(db, run, ANSWER, now=NOW + MINUTE)


def test_what_a_dead_process_had_queued_is_taken_up(db: Connection, instance: int) -> None:
    """It has not begun."""
    run = queue(db, of_a_dead_process(db))

    assert recover(db, instance_id=instance, now=NOW).ours == (run,)
    assert row_of(db, run).instance_id == instance
    assert recover(db, instance_id=instance, now=NOW) == Recovered()


@pytest.mark.parametrize("trigger", [Trigger.MANUAL, Trigger.ASK, Trigger.DRILL])
def test_what_was_asked_for_by_hand_is_cancelled(db: Connection, instance: int, trigger: Trigger) -> None:
    """Nobody waits for it any more."""
    run = queue(db, of_a_dead_process(db), trigger)

    assert recover(db, instance_id=instance, now=NOW) == Recovered()

    assert (row_of(db, run).state, row_of(db, run).reason) == ("cancelled", "process_gone")


def test_a_living_process_keeps_its_runs(db: Connection, instance: int) -> None:
    """However long it is silent: on this host its process id is asked."""
    run = start(db, instance)
    late = NOW + 10 * GONE_AFTER

    assert recover(db, instance_id=instance, now=late) == Recovered()

    assert row_of(db, run).state == RunState.RUNNING


def test_a_process_id_that_was_given_again_is_another_process(db: Connection, instance: int) -> None:
    """The start time tells them apart."""
    other = make_instance(db)
    db.execute(update(instance_table).where(instance_table.c.id == other).values(pid_started="boot:1"))
    run = start(db, other)

    recover(db, instance_id=instance, now=NOW)

    assert row_of(db, run).state == RunState.ABANDONED


@pytest.mark.parametrize(("silent", "state"), [(timedelta(0), "running"), (2 * GONE_AFTER, "abandoned")])
def test_a_process_of_another_host_is_gone_when_it_is_silent(
    db: Connection, instance: int, silent: timedelta, state: str
) -> None:
    """Nobody can ask there for its process id."""
    other = make_instance(db)
    db.execute(update(instance_table).where(instance_table.c.id == other).values(host="elsewhere", pid=1))
    run = start(db, other)

    recover(db, instance_id=instance, now=NOW + silent)

    assert row_of(db, run).state == state


def test_a_process_that_stopped_is_gone(db: Connection, instance: int) -> None:
    """It has said so."""
    other = make_instance(db)
    run = queue(db, other)
    instances.stop(db, other, now=NOW)

    assert recover(db, instance_id=instance, now=NOW).ours == (run,)


RERUN = OnGone(rerun=["digest"])
PAID = PaidAnswer(0, 1, "hello", truncated=False, served=Served("zai", "glm-5", "key"), fallback=False)


def pausing(_job: str) -> Consequences:
    """Return what pauses a job after its first failure."""
    return Consequences(pause_after_failures=1)


@pytest.mark.parametrize("on_gone", [OnGone(), RERUN], ids=["abandon", "rerun"])
def test_a_dead_process_whose_answer_was_written_down_has_succeeded(
    db: Connection, instance: int, on_gone: OnGone
) -> None:
    """What was paid for is not thrown away, nor paid for again; what comes after it comes."""
    run = start(db, of_a_dead_process(db))
    runs.keep_answer(db, replace(PAID, run_id=run.id))
    follows = replace(on_gone, consequences=lambda _job: Consequences((Follower("report"),)))

    (left,) = recover(db, instance_id=instance, now=NOW + SECOND, on_gone=follows).ended

    assert (row_of(db, run).state, row_of(db, run).output) == ("succeeded", "hello")
    assert [each.job for each in left.ended.followers] == ["report"]


def test_an_answer_that_its_process_has_not_judged_is_kept_and_proves_nothing(
    db: Connection, instance: int
) -> None:
    run = start(db, of_a_dead_process(db))
    runs.keep_answer(db, replace(PAID, run_id=run.id))

    recover(db, instance_id=instance, now=NOW + SECOND, on_gone=OnGone(judged=["digest"]))

    assert (row_of(db, run).state, row_of(db, run).output) == ("abandoned", "hello")


def test_an_answer_of_another_try_is_not_written_down(db: Connection, instance: int) -> None:
    run = start(db, instance)
    before = row_of(db, run)

    runs.keep_answer(db, replace(PAID, run_id=run.id, tries=run.tries + 1))

    assert row_of(db, run) == before


def test_what_a_dead_process_was_running_waits_for_another_try_where_its_job_wants_that(
    db: Connection, instance: int
) -> None:
    """The same row; what the dead process says of it later is of another try."""
    run = start(db, of_a_dead_process(db))
    send(db, run)

    (taken,) = recover(db, instance_id=instance, now=NOW + SECOND, on_gone=RERUN).ours

    assert (taken.id, taken.tries, taken.started_at) == (run.id, 1, NOW)
    assert (row_of(db, run).state, row_of(db, run).instance_id) == ("queued", instance)
    assert db.execute(select(attempt_table.c.outcome)).scalar_one() == AttemptOutcome.UNKNOWN
    again = begin(db, instance, taken, now=NOW + MINUTE)
    assert (again.tries, again.started_at) == (2, NOW)
    with pytest.raises(FenceLost), db.begin_nested():
        runs.finish(db, run, ANSWER, now=NOW + MINUTE)
    runs.finish(db, again, ANSWER, now=NOW + MINUTE)


def test_a_run_that_kills_its_processes_is_not_run_again_for_ever(db: Connection, instance: int) -> None:
    run = queue(db, instance)
    for number in range(1, MOST_TRIES_THROUGH_CRASHES + 1):
        run = begin(db, of_a_dead_process(db), run)
        found = recover(db, instance_id=instance, now=NOW, on_gone=RERUN)
        assert bool(found.ours) is (number < MOST_TRIES_THROUGH_CRASHES)

    assert row_of(db, run).state == RunState.ABANDONED


@pytest.mark.parametrize("trigger", [Trigger.MANUAL, Trigger.DRILL])
def test_what_was_asked_for_by_hand_is_not_run_again(db: Connection, instance: int, trigger: Trigger) -> None:
    run = start(db, of_a_dead_process(db), trigger)

    assert recover(db, instance_id=instance, now=NOW, on_gone=RERUN).ours == ()
    assert row_of(db, run).state == RunState.ABANDONED


def test_what_somebody_wanted_ended_is_not_run_again(db: Connection, instance: int) -> None:
    run = start(db, of_a_dead_process(db))
    assert runs.request_cancel(db, run.id, Reason.OPERATOR)

    assert recover(db, instance_id=instance, now=NOW, on_gone=RERUN).ours == ()
    assert row_of(db, run).state == RunState.ABANDONED


def test_two_processes_take_up_what_a_third_has_left_only_once(db: Connection, instance: int) -> None:
    run = queue(db, of_a_dead_process(db))
    other = make_instance(db)

    taken = [recover(db, instance_id=each, now=NOW).ours for each in (instance, other)]

    assert taken == [(run,), ()]
    assert row_of(db, run).instance_id == instance


def test_abandoned_runs_count_as_failures_and_pause_their_job(db: Connection, instance: int) -> None:
    start(db, of_a_dead_process(db))

    (left,) = recover(db, instance_id=instance, now=NOW, on_gone=OnGone(consequences=pausing)).ended

    assert (left.outcome.state, left.ended.paused) == (RunState.ABANDONED, "a failed run")
    assert job_verbs.states(db)["digest"].pause_reason == "a failed run"


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


TAKEN_AWAY = {
    "abandoned": lambda db, other, run: recover(db, instance_id=other, now=NOW),
    "waiting": lambda db, other, run: recover(db, instance_id=other, now=NOW, on_gone=RERUN),
    "running elsewhere": lambda db, other, run: begin(
        db, other, recover(db, instance_id=other, now=NOW, on_gone=RERUN).ours[0]
    ),
}


@pytest.mark.parametrize("purpose", [Purpose.MAIN, Purpose.TITLE])
@pytest.mark.parametrize("taken", TAKEN_AWAY)
def test_a_process_that_has_lost_a_run_sends_nothing_more_for_it(
    db: Connection, instance: int, taken: str, purpose: Purpose
) -> None:
    """One that was stopped for a minute, say: its request would be paid, and nobody would hear of it."""
    run = start(db, of_a_dead_process(db))
    TAKEN_AWAY[taken](db, instance, run)

    with pytest.raises(FenceLost), db.begin_nested():
        send(db, run, purpose)

    assert db.execute(select(attempt_table)).all() == []


def test_a_refresh_that_comes_after_the_end_of_its_run_stands_for_itself(
    db: Connection, instance: int
) -> None:
    """Others may wait for it: a login is not of one run."""
    run = start(db, instance)
    runs.finish(db, run, ENDINGS["timed_out"], now=NOW)

    sent = send(db, run, Purpose.REFRESH)

    query = select(attempt_table.c.run_id, attempt_table.c.purpose).where(attempt_table.c.id == sent)
    assert tuple(db.execute(query).one()) == (None, "refresh")
