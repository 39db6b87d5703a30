"""What processes that are gone have left: taken up, run again, or ended, once."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, select, update
from support.ledger import MINUTE, NOW, SECOND, make_instance
from test_run_states import AGAIN, ANSWER, PAID, begin, pausing, queue, row_of, send, start

from jobs.attempt import AttemptOutcome, Purpose
from jobs.errors import FenceLost
from jobs.run import (
    Consequences,
    Follower,
    Reason,
    RunState,
    Trigger,
)
from jobs.store import instances, runs
from jobs.store import jobs as job_verbs
from jobs.store.instances import GONE_AFTER
from jobs.store.recovery import MOST_CRASHES, OnGone, Recovered, answered, recover
from jobs.store.tables import attempts as attempt_table
from jobs.store.tables import instances as instance_table


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance."""
    return make_instance(db)


def of_a_dead_process(db: Connection, kind: str = "daemon") -> int:
    """Return the instance of a process that has worked here and is gone."""
    words = "import os; print(os.getpid(), open('/proc/self/stat').read().rpartition(')')[2].split()[19])"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    pid, ticks = said.split()
    dead = make_instance(db)
    boot = instances.process_start(1).partition(":")[0]
    started = f"{boot}:{ticks}"
    gone = {"kind": kind, "pid": int(pid), "pid_started": started}
    db.execute(update(instance_table).where(instance_table.c.id == dead).values(gone))
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
def test_what_a_command_was_to_do_by_hand_is_cancelled(
    db: Connection, instance: int, trigger: Trigger
) -> None:
    """Nobody waits for it any more."""
    run = queue(db, of_a_dead_process(db, "command"), trigger)

    assert recover(db, instance_id=instance, now=NOW) == Recovered()

    assert (row_of(db, run).state, row_of(db, run).reason) == ("cancelled", "shutdown")


def test_what_a_daemon_was_to_do_by_hand_is_taken_up_by_the_next(db: Connection, instance: int) -> None:
    """It was asked for with `--detach`: nobody waits, and it has not begun."""
    run = queue(db, of_a_dead_process(db), Trigger.MANUAL)

    assert recover(db, instance_id=instance, now=NOW).ours == (run,)

    assert (row_of(db, run).state, row_of(db, run).instance_id) == ("queued", instance)


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


def test_an_answer_that_may_be_silent_ends_its_run_when_somebody_has_judged_it(
    db: Connection, instance: int
) -> None:
    run = start(db, of_a_dead_process(db))
    runs.keep_answer(db, replace(PAID, run_id=run.id))
    quiet = OnGone(quiet=["digest"])

    found = answered(db, instance_id=instance, now=NOW + SECOND, on_gone=quiet)
    before = recover(db, instance_id=instance, now=NOW + SECOND, on_gone=quiet)
    recover(db, instance_id=instance, now=NOW + SECOND, on_gone=quiet, silent={run.id: True})

    assert [(left.id, outcome.output) for left, outcome in found] == [(run.id, "hello")]
    assert before.ended == ()
    assert (row_of(db, run).state, row_of(db, run).silent) == ("succeeded", True)


def test_what_a_dead_process_was_running_waits_for_another_try_where_its_job_wants_that(
    db: Connection, instance: int
) -> None:
    """The same row; what the dead process says of it later is of another try."""
    run = start(db, of_a_dead_process(db))
    send(db, run)

    (taken,) = recover(db, instance_id=instance, now=NOW + SECOND, on_gone=RERUN).ours

    assert (taken.id, taken.tries, taken.crashes) == (run.id, 1, 1)
    assert (row_of(db, run).state, row_of(db, run).instance_id) == ("queued", instance)
    assert db.execute(select(attempt_table.c.outcome)).scalar_one() == AttemptOutcome.UNKNOWN
    again = begin(db, instance, taken, now=NOW + MINUTE)
    assert (again.tries, again.started_at) == (2, NOW + MINUTE), "it has the job's whole timeout"
    with pytest.raises(FenceLost), db.begin_nested():
        runs.finish(db, run, ANSWER, now=NOW + MINUTE)
    runs.finish(db, again, ANSWER, now=NOW + MINUTE)


def test_a_run_that_kills_its_processes_is_not_run_again_for_ever(db: Connection, instance: int) -> None:
    run = queue(db, instance)
    for number in range(1, MOST_CRASHES + 1):
        run = begin(db, of_a_dead_process(db), run)
        found = recover(db, instance_id=instance, now=NOW, on_gone=RERUN)
        assert bool(found.ours) is (number < MOST_CRASHES)
        run = found.ours[0] if found.ours else run

    assert row_of(db, run).state == RunState.ABANDONED


def test_tries_that_the_job_itself_wanted_are_none_of_the_crashes(db: Connection, instance: int) -> None:
    run = queue(db, instance)
    for _ in range(MOST_CRASHES):
        run = begin(db, instance, run)
        runs.requeue(db, run, AGAIN, not_before=NOW, now=NOW)
    begin(db, of_a_dead_process(db), run)

    (taken,) = recover(db, instance_id=instance, now=NOW, on_gone=RERUN).ours

    assert (taken.tries, taken.crashes) == (MOST_CRASHES + 1, 1)


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
