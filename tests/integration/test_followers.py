"""Runs of jobs that come after another: made in the transaction that writes its success, once."""

import pytest
from sqlalchemy import Connection, select, update
from support.claiming import HOURLY, claim
from support.ledger import HOUR, MINUTE, NOW, make_instance, target_of

from jobs.errors import ErrorClass, FenceLost
from jobs.run import (
    Bounds,
    ClaimedRun,
    Concurrency,
    Consequences,
    Follower,
    Outcome,
    Reason,
    RunState,
    Served,
    Trigger,
)
from jobs.store import jobs as job_verbs
from jobs.store import runs
from jobs.store.claims import NewRun
from jobs.store.followers import follow
from jobs.store.runs import Ended
from jobs.store.tables import jobs, schedule_periods
from jobs.store.tables import runs as table

ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance, which has seen three jobs."""
    job_verbs.see(db, dict.fromkeys(("first", "second", "third"), HOURLY), now=NOW - HOUR)
    return make_instance(db)


def running(
    db: Connection, instance: int, trigger: Trigger = Trigger.SCHEDULE, *, minutes: int = 0
) -> ClaimedRun:
    """Return a running run of the job `first`."""
    if trigger is Trigger.SCHEDULE:
        (run,) = claim(db, instance, NewRun("first", NOW + minutes * MINUTE, trigger)).ours
    else:
        run = runs.add(db, job="first", trigger=trigger, instance_id=instance, now=NOW)
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def finish(
    db: Connection, instance: int, run: ClaimedRun, *followers: Follower, outcome: Outcome = ANSWER
) -> Ended:
    """End a run; these jobs come after it."""
    return runs.finish(db, run, outcome, now=NOW, consequences=Consequences(followers), instance_id=instance)


def test_a_success_makes_a_run_of_every_job_that_comes_after(db: Connection, instance: int) -> None:
    """It says whose it is, stands at its parent's instant, and moves no cursor."""
    parent = running(db, instance)
    before = job_verbs.states(db)["second"]

    ended = finish(db, instance, parent, Follower("second"), Follower("third"))

    assert [(run.job, run.trigger, run.parent_id, run.scheduled_for) for run in ended.followers] == [
        ("second", Trigger.AFTER, parent.id, NOW),
        ("third", Trigger.AFTER, parent.id, NOW),
    ]
    row = db.execute(select(table).where(table.c.job == "second")).one()
    assert (row.state, row.instance_id, row.finished_at) == ("queued", instance, None)
    after = job_verbs.states(db)["second"]
    assert (after.cursor, after.runs_started) == (before.cursor, 1)


@pytest.mark.parametrize("trigger", [Trigger.MANUAL, Trigger.RETRY])
def test_a_success_by_hand_brings_them_too(db: Connection, instance: int, trigger: Trigger) -> None:
    parent = running(db, instance, trigger)

    assert len(finish(db, instance, parent, Follower("second")).followers) == 1


def test_a_drill_and_what_has_not_succeeded_bring_none(db: Connection, instance: int) -> None:
    failed = finish(
        db, instance, running(db, instance), Follower("second"), outcome=Outcome.failed(ErrorClass.AUTH, "no")
    )
    drilled = finish(db, instance, running(db, instance, Trigger.DRILL), Follower("second"))

    assert (failed, drilled) == (Ended(), Ended())


def test_one_run_brings_another_about_once(db: Connection, instance: int) -> None:
    """Whatever is tried: the end is written once, and the database holds (job, parent) unique."""
    parent = running(db, instance)
    finish(db, instance, parent, Follower("second"))

    with pytest.raises(FenceLost), db.begin_nested():
        finish(db, instance, parent, Follower("second"))
    allow = Follower("second", Bounds(Concurrency.ALLOW))
    assert follow(db, parent, [allow], instance_id=instance, now=NOW) == ((), (), ())

    assert len(db.execute(select(table.c.id).where(table.c.job == "second")).all()) == 1


def test_a_follower_that_is_paused_or_held_is_skipped_with_a_row_that_says_so(
    db: Connection, instance: int
) -> None:
    job_verbs.pause(db, "second", reason=None, now=NOW)
    db.execute(update(jobs).where(jobs.c.name == "third").values(held_until=NOW + HOUR))

    ended = finish(db, instance, running(db, instance), Follower("second"), Follower("third"))

    assert ended.followers == ()
    assert [(row.job, row.state, row.reason) for row in ended.decided] == [
        ("second", RunState.SKIPPED, "paused"),
        ("third", RunState.SKIPPED, "held"),
    ]


def test_a_follower_that_is_at_work_is_skipped_waits_or_replaces_as_it_wants(
    db: Connection, instance: int
) -> None:
    """As for an instant of its own."""
    for job in ("second", "third", "fourth"):
        run = runs.add(db, job=job, trigger=Trigger.MANUAL, instance_id=instance, now=NOW)
        runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)
    ended = finish(
        db,
        instance,
        running(db, instance),
        Follower("second"),
        Follower("third", Bounds(Concurrency.QUEUE)),
        Follower("fourth", Bounds(Concurrency.REPLACE)),
    )

    assert [(row.job, row.reason) for row in ended.decided] == [("second", "overlap")]
    assert [(run.job, run.behind) for run in ended.followers] == [("third", True), ("fourth", True)]
    assert list(runs.to_be_cancelled(db, instance)) == list(ended.replaced)
    assert len(ended.replaced) == 1


def test_runs_after_others_count_for_max_runs_and_end_the_schedule_where_it_stands(
    db: Connection, instance: int
) -> None:
    """What was decided of it has its rows already; after that nothing comes, of itself or after others."""
    claim(db, instance, NewRun("second", NOW + HOUR, Trigger.SCHEDULE, RunState.SKIPPED, "overlap"))
    once = Follower("second", Bounds(max_runs=1))

    ended = [finish(db, instance, running(db, instance, minutes=minutes), once) for minutes in range(2)]

    assert [len(each.followers) for each in ended] == [1, 0]
    assert ended[1].decided == ()
    state = job_verbs.states(db)["second"]
    assert (state.periods, state.runs_started, state.cursor) == ((), 1, NOW + HOUR)
    until = select(schedule_periods.c.until).where(schedule_periods.c.job == "second")
    assert db.execute(until).scalar_one() == NOW + HOUR


def test_a_follower_that_was_cancelled_before_it_began_does_not_count(db: Connection, instance: int) -> None:
    once = Follower("second", Bounds(max_runs=1))
    ended = finish(db, instance, running(db, instance), once)

    runs.cancel_queued(db, ended.followers[0].id, Reason.OPERATOR, now=NOW)

    assert job_verbs.states(db)["second"].runs_started == 0
    assert len(finish(db, instance, running(db, instance, minutes=1), once).followers) == 1


def test_a_follower_that_nobody_has_seen_runs_nevertheless(db: Connection, instance: int) -> None:
    """A job without a schedule, whose parent is run by hand before any daemon was up."""
    assert len(finish(db, instance, running(db, instance), Follower("new")).followers) == 1
