"""Holds in the ledger: never shortened, ended once, made up for by one run."""

import pytest
from sqlalchemy import Connection, insert, select, update
from support.claiming import DAILY, HOURLY
from support.ledger import HOUR, MINUTE, NOW, make_instance

from jobs.run import ClaimedRun, Hold, Trigger
from jobs.store import holds
from jobs.store import jobs as job_verbs
from jobs.store.tables import jobs, runs


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance, which sees one job."""
    job_verbs.see(db, {"digest": HOURLY, "report": HOURLY}, now=NOW)
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
    opening = NOW + hours * HOUR
    return holds.hold(db, run, Hold(opening, closed, "every target is closed"), now=NOW).first


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

    held = holds.held(db)["digest"]
    assert (held.opens_at, held.held_until) == (NOW + 5 * HOUR, NOW + 5 * HOUR + MINUTE)


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

    later = NOW + 6 * MINUTE

    assert holds.note_probe(db, holds.held(db)["digest"], now=later)
    assert not holds.note_probe(db, holds.held(db)["report"], now=later)

    assert {each.probed_at for each in holds.held(db).values()} == {later}


def test_a_run_by_hand_does_not_take_the_lost_instant_away(db: Connection, instance: int) -> None:
    """`job run --force` that fails too leaves what is to be made up for."""
    failed = ended(db, instance)
    hold(db, failed)
    hold(db, ended(db, instance, trigger=Trigger.MANUAL, scheduled_for=NOW + MINUTE))

    _, run = holds.release(db, holds.held(db)["digest"], makes_up=True, instance_id=instance, now=NOW)

    assert run is not None
    assert run.scheduled_for == NOW


def test_nothing_older_than_what_has_run_is_made_up_for(db: Connection, instance: int) -> None:
    """A probe that was answered has brought the newer digest already."""
    hold(db, ended(db, instance))
    ended(db, instance, state="skipped", reason="held", scheduled_for=NOW + HOUR)
    ended(db, instance, state="cancelled", reason=None, scheduled_for=NOW + 2 * HOUR)

    assert release(db, instance, holds.held(db)["digest"]) == (True, None)


def test_a_job_at_work_stays_held_until_it_is_not(db: Connection, instance: int) -> None:
    """What makes up for a lost instant does not overlap either."""
    hold(db, ended(db, instance))
    manual = ended(db, instance, trigger=Trigger.MANUAL, state="queued", finished_at=None)
    seen = holds.held(db)["digest"]

    assert release(db, instance, seen) == (False, None)
    db.execute(update(runs).where(runs.c.id == manual.id).values(state="cancelled", finished_at=NOW))
    ended_it, run = holds.release(db, seen, makes_up=True, instance_id=instance, now=NOW)
    assert ended_it
    assert run is not None


def test_a_paused_job_is_let_go_and_made_up_for_by_nobody(db: Connection, instance: int) -> None:
    """It skips what is due: it is paused."""
    hold(db, ended(db, instance))
    db.execute(update(jobs).where(jobs.c.name == "digest").values(paused_at=NOW))

    assert release(db, instance, holds.held(db)["digest"]) == (True, None)


def test_a_job_that_was_switched_off_is_owed_nothing_from_before(db: Connection, instance: int) -> None:
    """Neither is one whose schedule has changed."""
    hold(db, ended(db, instance))
    hold(db, ended(db, instance, job="report"))

    job_verbs.see(db, {"digest": None, "report": DAILY}, now=NOW)

    assert holds.held(db) == {}


def test_the_same_outage_is_told_once_until_something_answers(db: Connection, instance: int) -> None:
    """A hold that ends by time, and begins again, is no news; after a reset it is."""
    assert hold(db, ended(db, instance))
    release(db, instance, holds.held(db)["digest"], makes_up=False)
    assert not hold(db, ended(db, instance, scheduled_for=NOW + HOUR))

    holds.open_up(db, [("zai", "main")], now=NOW)
    release(db, instance, holds.held(db)["digest"], makes_up=False)

    assert hold(db, ended(db, instance, scheduled_for=NOW + 2 * HOUR))


def test_a_hold_is_ended_by_whatever_opens_one_of_its_credentials(db: Connection, instance: int) -> None:
    """Also in the minute after its time; another credential of a like name ends nothing."""
    hold(db, ended(db, instance), closed="groq/main, zai/main (glm-5)")

    holds.open_up(db, [("zai", "main2"), ("za", "main")], now=NOW)
    assert holds.held(db)["digest"].opens_at is not None
    holds.open_up(db, [("zai", "main")], now=NOW)

    held = holds.held(db)["digest"]
    assert (held.opens_at, held.held_until) == (None, NOW)


def test_what_is_made_up_for_in_vain_is_held_for_longer_each_time(db: Connection, instance: int) -> None:
    """One dead server does not cost a daily job a run a minute."""
    lengths = []
    for trigger in (Trigger.SCHEDULE, Trigger.RETRY, Trigger.RETRY, Trigger.RETRY):
        hold(db, ended(db, instance, trigger=trigger), hours=1)
        lengths.append((holds.held(db)["digest"].held_until - NOW - HOUR) / MINUTE)
        release(db, instance, holds.held(db)["digest"], makes_up=False)

    assert lengths == [1, 2, 4, 8]
