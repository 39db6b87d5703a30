"""The ledger: who wins an instant, what becomes of the others, and that rows only move forward."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from support.ledger import HOUR, MINUTE, NOW, SECOND, make_instance, url_of

from jobs.run import Reason, RunState, Trigger
from jobs.store import jobs as job_verbs
from jobs.store import runs
from jobs.store.runs import Claimed, NewRun
from jobs.store.tables import jobs
from jobs.store.tables import runs as table

RACERS, JOBS, INSTANTS = 4, 10, 100


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance."""
    return make_instance(db)


def claim(db: Connection, instance: int, *new: NewRun) -> Claimed:
    """Claim as the daemon does."""
    return runs.claim(db, new, cursors=[], instance_id=instance, now=NOW)


def due(job: str = "digest", minutes: int = 0, trigger: Trigger = Trigger.SCHEDULE) -> NewRun:
    """Return an instant that is to be run."""
    return NewRun(job, NOW + minutes * MINUTE, trigger)


def end_all(db: Connection) -> None:
    """End every run that is open."""
    db.execute(update(table).where(table.c.finished_at.is_(None)).values(state="cancelled", finished_at=NOW))


def test_four_processes_race_for_a_thousand_claims_and_each_is_won_once(engine: Engine) -> None:
    """Whoever inserts the row runs it: no lock, no leader."""
    url = url_of(Path(engine.url.database or ""))
    words = [sys.executable, "-m", "support.racer", url, str(JOBS), str(INSTANTS)]
    tests = Path(__file__).parents[1]
    racers = [
        subprocess.Popen(
            words, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(RACERS)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ended = [racer.communicate(timeout=60) for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * RACERS, ended
    won = Counter(line for out, _ in ended for line in out.split())
    with engine.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
    assert len(won) == rows == JOBS * INSTANTS
    assert set(won.values()) == {1}
    assert sum(bool(out) for out, _ in ended) > 1, "only one process ever won: that was no race"


def test_an_instant_that_has_a_row_is_somebody_elses(db: Connection, instance: int) -> None:
    """It is in neither list."""
    claim(db, instance, due())
    end_all(db)

    again = claim(db, instance, due(), due(trigger=Trigger.CATCH_UP))

    assert again == Claimed((), ())


def test_an_instant_is_unique_among_scheduled_triggers_only(db: Connection, instance: int) -> None:
    """By hand it may run at the same second, any number of times."""
    claim(db, instance, due())

    for _ in range(2):
        runs.add(db, job="digest", trigger=Trigger.MANUAL, instance_id=instance, now=NOW)

    assert db.execute(select(func.count()).select_from(table)).scalar_one() == 3


@pytest.mark.parametrize("first", [Trigger.SCHEDULE, Trigger.CATCH_UP])
@pytest.mark.parametrize("second", [Trigger.SCHEDULE, Trigger.CATCH_UP])
def test_the_database_itself_holds_an_instant_unique(db: Connection, first: Trigger, second: Trigger) -> None:
    """Whoever writes the row."""
    row = {"job": "digest", "scheduled_for": NOW, "state": "queued", "created_at": NOW}
    db.execute(insert(table).values(**row, trigger=first))

    with pytest.raises(IntegrityError), db.begin_nested():
        db.execute(insert(table).values(**row, trigger=second))


def test_a_run_after_another_is_unique_by_its_parent(db: Connection, instance: int) -> None:
    """Once per parent, whatever the time."""
    parent = runs.add(db, job="first", trigger=Trigger.MANUAL, instance_id=instance, now=NOW)
    row = {"job": "second", "trigger": "after", "state": "queued", "created_at": NOW, "parent_id": parent.id}
    db.execute(insert(table).values(**row, scheduled_for=NOW))

    with pytest.raises(IntegrityError), db.begin_nested():
        db.execute(insert(table).values(**row, scheduled_for=NOW + HOUR))


def test_a_job_that_is_at_work_skips_its_newcomers(db: Connection, instance: int) -> None:
    """`skipped: overlap` is a row too: no instant is without one."""
    claim(db, instance, due())

    later = claim(db, instance, due(minutes=1), due("other", minutes=1))

    assert [run.job for run in later.ours] == ["other"]
    assert [(row.job, row.state, row.reason) for row in later.final] == [("digest", "skipped", "overlap")]


def test_two_instants_of_one_claim_overlap_too(db: Connection, instance: int) -> None:
    """The first one runs."""
    claimed = claim(db, instance, due(), due(minutes=1))

    assert [run.scheduled_for for run in claimed.ours] == [NOW]
    assert [row.scheduled_for for row in claimed.final] == [NOW + MINUTE]


def test_an_instant_that_never_runs_is_born_final(db: Connection, instance: int) -> None:
    """A row may span several: it stands at the last, and says the first and how many."""
    missed = NewRun("digest", NOW, Trigger.CATCH_UP, RunState.MISSED, str(Reason.COALESCED), NOW - HOUR, 3600)

    claimed = claim(db, instance, missed)

    assert claimed == Claimed((), (missed,))
    row = db.execute(select(table)).one()
    assert (row.state, row.reason, row.finished_at) == ("missed", "coalesced", NOW)
    assert (row.span_first, row.span_count) == (NOW - HOUR, 3600)


def test_many_claims_fit_one_transaction(db: Connection, instance: int) -> None:
    """More than SQLite takes variables in one statement."""
    claimed = claim(db, instance, *(due(f"job-{number}") for number in range(3000)))

    assert [run.job for run in claimed.ours] == [f"job-{number}" for number in range(3000)]


def test_a_cursor_moves_forward_only(db: Connection) -> None:
    """A clock that was set back owes nothing twice."""
    job_verbs.see(db, {"digest": "0 7 * * *"}, now=NOW)

    job_verbs.advance(db, [("digest", NOW + HOUR)])
    job_verbs.advance(db, [("digest", NOW - HOUR), ("nobody", NOW)])

    assert job_verbs.states(db)["digest"].cursor == NOW + HOUR


def test_claims_and_cursor_are_one_transaction(db: Connection, instance: int) -> None:
    """A claim that fails leaves the instants owed."""
    job_verbs.see(db, {"digest": "0 7 * * *"}, now=NOW)
    wrong = NewRun("digest", NOW + MINUTE, Trigger.SCHEDULE, RunState.SKIPPED, span_count=2)

    with pytest.raises(IntegrityError), db.begin_nested():
        runs.claim(db, [wrong], cursors=[("digest", NOW + MINUTE)], instance_id=instance, now=NOW)

    assert job_verbs.states(db)["digest"].cursor == NOW


def test_a_job_owes_nothing_from_before_its_first_sight_or_its_change(db: Connection) -> None:
    """A cursor begins where the schedule does."""
    job_verbs.see(db, {"digest": "0 7 * * *"}, now=NOW)

    same = job_verbs.see(db, {"digest": "0 7 * * *"}, now=NOW + HOUR)
    changed = job_verbs.see(db, {"digest": "0 8 * * *"}, now=NOW + 2 * HOUR)

    assert same["digest"].cursor == NOW
    assert changed["digest"].cursor == NOW + 2 * HOUR
    assert changed["digest"].first_seen_at == NOW
    assert db.execute(select(func.count()).select_from(jobs)).scalar_one() == 1


def test_the_pid_of_this_process_is_its_owner(db: Connection, instance: int) -> None:
    """So that others can see whether it is gone."""
    claim(db, instance, due())

    taken = runs.recover(db, instance_id=instance, now=NOW + SECOND)

    assert taken == []
    assert os.getpid() in {row.pid for row in db.exec_driver_sql("SELECT pid FROM instances")}


def test_a_job_that_was_gone_from_the_files_owes_nothing_for_that_time(db: Connection) -> None:
    """Coming back counts as a change of its schedule."""
    job_verbs.see(db, {"digest": "every 1s UTC"}, now=NOW)
    job_verbs.see(db, {}, now=NOW + SECOND)

    back = job_verbs.see(db, {"digest": "every 1s UTC"}, now=NOW + 60 * SECOND)

    assert back["digest"].cursor == NOW + 60 * SECOND
    assert back["digest"].first_seen_at == NOW
