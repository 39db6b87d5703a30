"""What later prompts read of earlier runs, and what a run's row says of its own prompt."""

import pytest
from sqlalchemy import Connection, select, update
from support.ledger import NOW, SECOND, make_instance, target_of

from jobs.errors import ErrorClass, FenceLost
from jobs.run import ClaimedRun, Outcome, RunState, Served, Trigger
from jobs.store import runs
from jobs.store.outputs import newest_outputs
from jobs.store.tables import runs as table

FAILED = Outcome.failed(ErrorClass.AUTH, "refused")


def start(db: Connection, job: str = "digest", trigger: Trigger = Trigger.MANUAL) -> ClaimedRun:
    """Return a running run."""
    instance = make_instance(db)
    run = runs.add(db, job=job, trigger=trigger, instance_id=instance, now=NOW)
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def end(db: Connection, outcome: Outcome, job: str = "digest", trigger: Trigger = Trigger.MANUAL) -> None:
    """Write a run with this end."""
    runs.finish(db, start(db, job, trigger), outcome, now=NOW + SECOND)


def good(text: str) -> Outcome:
    """Return a good end."""
    return Outcome.succeeded(text, served=Served("zai", "glm-5", "key"))


def test_the_newest_good_answer_of_each_job_is_found(db: Connection) -> None:
    for job, outcome in (("a", good("first")), ("a", good("second")), ("a", FAILED), ("b", FAILED)):
        end(db, outcome, job)

    assert newest_outputs(db, ("a", "b", "c")) == {"a": "second", "b": "", "c": ""}


def test_a_drills_answer_goes_into_no_later_prompt(db: Connection) -> None:
    end(db, good("real"))
    end(db, good("rehearsed"), trigger=Trigger.DRILL)

    assert newest_outputs(db, ("digest",)) == {"digest": "real"}


def test_a_new_try_begins_with_nothing_made_shorter(db: Connection) -> None:
    run = start(db)
    runs.keep_shortened(db, run, 900, 100)
    lengths = select(table.c.compressed_from, table.c.compressed_to)
    assert tuple(db.execute(lengths).one()) == (900, 100)
    db.execute(update(table).values(state=RunState.QUEUED))

    runs.start(db, run, primary=target_of(), instance_id=make_instance(db), now=NOW)

    assert tuple(db.execute(lengths).one()) == (None, None)


def test_a_run_that_has_ended_was_made_no_shorter(db: Connection) -> None:
    run = start(db)
    runs.finish(db, run, good("text"), now=NOW + SECOND)

    with pytest.raises(FenceLost), db.begin_nested():
        runs.keep_shortened(db, run, 900, 100)

    assert db.execute(select(table.c.compressed_to)).scalar_one() is None
