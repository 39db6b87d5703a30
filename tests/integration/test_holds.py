"""Holds in the ledger: never shortened, ended once, made up for by one run."""

import pytest
from sqlalchemy import Connection, insert, select
from support.ledger import HOUR, MINUTE, NOW, make_instance

from jobs.run import ClaimedRun, Hold, Trigger
from jobs.store import holds
from jobs.store import jobs as job_verbs
from jobs.store.tables import runs


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance, which sees one job."""
    job_verbs.see(db, {"digest": "hourly", "report": "hourly"}, now=NOW)
    return make_instance(db)


def ended(db: Connection, instance: int, *, job: str = "digest", **values: object) -> ClaimedRun:
    """Return a run that has failed, or ended as `values` say."""
    row = {
        "job": job,
        "scheduled_for": NOW,
        "trigger": Trigger.SCHEDULE,
        "state": "failed",
        "reason": "quota_window",
        "instance_id": instance,
        "created_at": NOW,
        "finished_at": NOW,
        **values,
    }
    run_id = db.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
    return ClaimedRun(run_id, job, row["scheduled_for"], Trigger(row["trigger"]), 1)


def hold(db: Connection, run: ClaimedRun, *, hours: int = 2, closed: str = "zai/main") -> bool:
    """Hold a run's job."""
    return holds.hold(db, run, Hold(NOW + hours * HOUR, closed, "every target is closed"), now=NOW)


def release(db: Connection, instance: int, seen: holds.HeldJob, *, makes_up: bool = True) -> object:
    """End a hold."""
    return holds.release(db, seen, makes_up=makes_up, instance_id=instance, now=NOW)


def test_only_the_first_job_that_the_same_credentials_hold_is_an_alert(db: Connection, instance: int) -> None:
    """Another set of credentials is another alert."""
    assert hold(db, ended(db, instance))
    assert not hold(db, ended(db, instance, job="report"))
    assert hold(db, ended(db, instance, job="report", scheduled_for=NOW + HOUR), closed="groq/main")


def test_a_hold_is_never_shortened(db: Connection, instance: int) -> None:
    """The later of two stays."""
    hold(db, ended(db, instance), hours=5)
    hold(db, ended(db, instance, scheduled_for=NOW + HOUR), hours=2)

    assert holds.held(db)["digest"].held_until == NOW + 5 * HOUR


def test_a_hold_is_ended_once_and_made_up_for_once(db: Connection, instance: int) -> None:
    """Of two processes that see it end, one makes the run."""
    failed = ended(db, instance)
    hold(db, failed)
    seen = holds.held(db)["digest"]

    ended_it, run = holds.release(db, seen, makes_up=True, instance_id=instance, now=NOW)
    again = release(db, instance, seen)

    assert ended_it
    assert run is not None
    row = db.execute(select(runs).where(runs.c.id == run.id)).one()
    assert (row.trigger, row.parent_id, row.scheduled_for) == ("retry", failed.id, NOW)
    assert again == (False, None)
    assert holds.held(db) == {}


def test_the_newest_instant_that_the_hold_has_cost_is_made_up_for(db: Connection, instance: int) -> None:
    """Not each of them."""
    hold(db, ended(db, instance))
    for hours in (1, 2):
        skipped = {"state": "skipped", "reason": "held", "scheduled_for": NOW + hours * HOUR}
        newest = ended(db, instance, **skipped)
    ended(db, instance, state="skipped", reason="overlap", scheduled_for=NOW + 3 * HOUR)

    _, run = holds.release(
        db, holds.held(db)["digest"], makes_up=True, instance_id=instance, now=NOW + 3 * HOUR
    )

    assert run is not None
    assert run.scheduled_for == NOW + 2 * HOUR
    assert db.execute(select(runs.c.parent_id).where(runs.c.id == run.id)).scalar_one() == newest.id


@pytest.mark.parametrize(("trigger", "makes_up"), [(Trigger.MANUAL, True), (Trigger.SCHEDULE, False)])
def test_nothing_is_made_up_where_nothing_was_due_or_something_runs_now(
    db: Connection, instance: int, trigger: Trigger, makes_up: bool
) -> None:
    """A run by hand owes nothing to the schedule."""
    hold(db, ended(db, instance, trigger=trigger))

    assert release(db, instance, holds.held(db)["digest"], makes_up=makes_up) == (True, None)


def test_a_probe_is_noted_for_every_job_that_the_same_credentials_hold(db: Connection, instance: int) -> None:
    """So that a hundred held jobs do not send a hundred probes."""
    hold(db, ended(db, instance))
    hold(db, ended(db, instance, job="report"))

    holds.note_probes(db, {"zai/main"}, now=NOW + 6 * MINUTE)

    assert {each.probed_at for each in holds.held(db).values()} == {NOW + 6 * MINUTE}
