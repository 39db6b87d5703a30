"""The audit of a real ledger: what the verbs write is whole, and every deliberate damage is found."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update
from support.claiming import HOURLY, claim
from support.ledger import MINUTE, NOW, SECOND, key_of, make_instance, target_of
from test_cli_ground import SCHEMAS, World

from jobs.attempt import Purpose, Wait
from jobs.run import Bounds, ClaimedRun, Concurrency, Follower, Outcome, Reason, RunState, Served, Trigger
from jobs.store import attempts, credentials, runs
from jobs.store import instances as instance_verbs
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Place
from jobs.store.claims import NewRun
from jobs.store.followers import follow
from jobs.store.tables import attempts as attempt_table
from jobs.store.tables import instances, jobs, schedule_periods
from jobs.store.tables import runs as table
from scheduler.audit import Kind
from scheduler.ledger_audit import Audit, audited

MINUTELY = '{"lines":["* * * * *"],"timezone":"Etc/UTC"}'
ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance.

    The ledger has a job of ten minutes: four runs, a span of three, a pause of two, one that runs now.
    """
    made = make_instance(db)
    job_verbs.see(db, {"digest": MINUTELY}, now=NOW)
    for minute in range(1, 5):
        end(db, made, minute)
    span = NewRun("digest", at(7), Trigger.CATCH_UP, RunState.MISSED, "coalesced", at(5), 3)
    claim(db, made, span)
    job_verbs.pause(db, "digest", reason=None, now=at(7.5))
    paused = NewRun("digest", at(9), Trigger.SCHEDULE, RunState.SKIPPED, "paused", at(8), 2)
    claim(db, made, paused)
    job_verbs.resume(db, "digest", now=at(9.5))
    begin(db, made, 10)
    return made


def at(minutes: float) -> datetime:
    return NOW + minutes * MINUTE


def begin(db: Connection, instance: int, minute: int) -> ClaimedRun:
    """Claim the run of a minute and start it."""
    new, beside = NewRun("digest", at(minute), Trigger.SCHEDULE), Bounds(Concurrency.ALLOW)
    (run,) = claim(db, instance, new, bounds=beside).ours
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def end(db: Connection, instance: int, minute: int) -> ClaimedRun:
    """Let the run of a minute succeed."""
    run = begin(db, instance, minute)
    runs.finish(db, run, ANSWER, now=NOW)
    return run


def audit(db: Connection, since: datetime | None = None) -> Audit:
    return audited(db, since=since, now=NOW)


def kinds(found: Audit) -> list[Kind]:
    return [fault.kind for _, fault in found.faults]


@pytest.mark.usefixtures("instance")
def test_what_the_verbs_have_written_is_whole(db: Connection) -> None:
    """A run in flight is no fault; what is not decided yet is not owed yet."""
    found = audit(db)

    assert (found.ok, found.faults, found.contradictions) == (True, [], [])
    assert (found.jobs, found.instants, found.rows) == (1, 10, 7)
    assert (found.unchecked, found.open_runs) == ({}, [])


@pytest.mark.parametrize("minute", [1, 4, 7, 9])
@pytest.mark.usefixtures("instance")
def test_a_row_that_was_deleted_is_missed(db: Connection, minute: int) -> None:
    db.execute(delete(table).where(table.c.scheduled_for == at(minute)))

    found = audit(db)

    assert (found.ok, kinds(found), dict(found.kinds)) == (False, [Kind.LOST], {"lost": 1})


ROW = {
    "job": "digest", "trigger": "schedule", "state": "cancelled", "reason": "operator",
    "created_at": NOW, "finished_at": NOW,
}  # fmt: skip


def put(db: Connection, instant: datetime) -> None:
    """Insert a row that nobody has claimed."""
    db.execute(insert(table).values(ROW | {"scheduled_for": instant}))


@pytest.mark.parametrize(("minutes", "kind"), [(6, Kind.TWICE), (4.5, Kind.BESIDE), (60, Kind.UNDECIDED)])
@pytest.mark.usefixtures("instance")
def test_a_row_too_many_is_found(db: Connection, minutes: float, kind: Kind) -> None:
    put(db, at(minutes))

    assert kinds(audit(db)) == [kind]


@pytest.mark.usefixtures("instance")
def test_a_span_that_counts_wrong_and_a_pause_that_was_run_are_found(db: Connection) -> None:
    db.execute(update(table).where(table.c.scheduled_for == at(7)).values(span_count=2))
    db.execute(update(table).where(table.c.scheduled_for == at(9)).values(reason="held"))

    assert kinds(audit(db)) == [Kind.MISCOUNTED, Kind.NOT_PAUSED]


@pytest.mark.parametrize("minutes", [4.5, 5, 6.2, 7])
@pytest.mark.usefixtures("instance")
def test_an_audit_since_a_moment_within_a_span_judges_it_whole(db: Connection, minutes: float) -> None:
    """And does not look further back."""
    db.execute(delete(table).where(table.c.scheduled_for == at(2)))

    assert audit(db, since=at(minutes)).ok
    assert not audit(db, since=at(1)).ok


@pytest.mark.usefixtures("instance")
def test_what_lies_before_the_horizon_is_told_and_not_judged(db: Connection) -> None:
    db.execute(delete(table).where(table.c.scheduled_for == at(2)))
    db.execute(update(jobs).values(pruned_until=at(3)))

    found = audit(db)

    assert found.ok
    assert found.unchecked == {"digest": (at(3), 2)}
    assert found.instants == 7


@pytest.mark.usefixtures("instance")
def test_faults_are_counted_all_and_listed_up_to_a_bound(db: Connection) -> None:
    for second in range(150):
        put(db, at(100) + second * SECOND)

    found = audit(db)

    assert (len(found.faults), found.kinds[Kind.UNDECIDED]) == (100, 150)


def test_a_changed_timetable_owes_what_it_did_while_it_was_in_force(db: Connection, instance: int) -> None:
    """Nothing for what was undecided when it was changed, nor while the job was gone."""
    job_verbs.see(db, {"digest": HOURLY}, now=at(30))
    job_verbs.see(db, {}, now=at(61))
    job_verbs.see(db, {"digest": HOURLY}, now=at(130))
    claim(db, instance, NewRun("digest", at(180), Trigger.SCHEDULE, RunState.SKIPPED, "overlap"))

    assert audit(db).ok
    put(db, at(60))
    assert kinds(audit(db)) == [Kind.BESIDE]


@pytest.mark.parametrize("stored", ["every second", HOURLY.replace("Etc/UTC", "Europe/Atlantis")])
@pytest.mark.usefixtures("instance")
def test_a_timetable_that_cannot_be_read_proves_nothing(db: Connection, stored: str) -> None:
    """Of a program that knew another zone, say."""
    db.execute(update(schedule_periods).values(timetable=stored))

    assert kinds(audit(db)) == [Kind.UNREADABLE]


def test_a_schedule_that_has_ended_owes_nothing_more(db: Connection, instance: int) -> None:
    end(db, instance, 11)
    job_verbs.end_schedule(db, "digest", at=at(11))
    db.execute(update(jobs).values(cursor=at(90)))

    assert audit(db).ok


def test_an_answer_that_a_run_that_has_ended_waits_for_is_a_contradiction(
    db: Connection, instance: int
) -> None:
    """But for that of its title."""
    credentials.ensure(db, key_of(), ("f1",), now=NOW)
    failed, titled = begin(db, instance, 11), end(db, instance, 12)
    for run, purpose in ((failed, Purpose.MAIN), (titled, Purpose.TITLE)):
        place = Place(run.id, run.tries, purpose, 0)
        attempts.insert_sent(db, place, target_of(), key_of(), base_url="u", wait=Wait(), now=NOW)
    assert audit(db).contradictions == []

    ended = {"state": "cancelled", "reason": "operator", "finished_at": NOW}
    db.execute(update(table).where(table.c.id == failed.id).values(ended))

    (found,) = audit(db).contradictions
    assert (found.what, found.count, found.ids) == ("has ended, and an answer is waited for", 1, (failed.id,))
    assert db.execute(select(func.count()).select_from(attempt_table)).scalar_one() == 2


def test_a_run_after_another_whose_parent_is_unknown_is_a_contradiction_where_nothing_was_pruned(
    db: Connection, instance: int
) -> None:
    run = runs.add(db, job="other", trigger=Trigger.AFTER, instance_id=instance, now=NOW)

    (found,) = audit(db).contradictions
    assert found.ids == (run.id,)
    db.execute(update(jobs).values(pruned_until=NOW))
    assert audit(db).contradictions == []


def said(db: Connection) -> list[tuple[str, int]]:
    """Return what contradicts itself, and in how many rows."""
    return [(each.what, each.count) for each in audit(db).contradictions]


SOUND = [
    ("cancelled", "replaced"), ("cancelled", "process_gone"), ("skipped", "budget"), ("missed", "window"),
    ("failed", "overloaded"), ("failed", "schema"), ("timed_out", "timeout"), ("abandoned", "process_gone"),
]  # fmt: skip
UNSOUND = [
    ("cancelled", "overlap"), ("cancelled", None), ("skipped", "late"), ("skipped", None),
    ("missed", "paused"), ("missed", None), ("failed", "held"), ("failed", None), ("timed_out", "operator"),
    ("abandoned", None),
]  # fmt: skip


@pytest.mark.usefixtures("instance")
def test_every_end_has_a_reason_that_its_state_can_have(db: Connection) -> None:
    """`process_gone` was also a cancellation's, in earlier versions."""
    by_hand = ROW | {"trigger": "manual", "scheduled_for": NOW}

    db.execute(insert(table), [by_hand | {"state": state, "reason": why} for state, why in SOUND])
    assert said(db) == []
    db.execute(insert(table), [by_hand | {"state": state, "reason": why} for state, why in UNSOUND])

    assert said(db) == [("has ended for no reason that its state has", len(UNSOUND))]


@pytest.mark.usefixtures("instance")
def test_rows_that_no_job_or_no_period_leads_to_are_a_contradiction(db: Connection) -> None:
    what = "is of a job that no schedule is known of"
    db.execute(insert(table).values(ROW | {"job": "ghost", "scheduled_for": at(3)}))
    assert said(db) == [(what, 1)]

    db.execute(delete(schedule_periods))
    db.execute(delete(jobs))

    assert said(db) == [(what, 8)]


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "failed", "reason": "auth"},
        {"trigger": "drill"},
        {"scheduled_for": at(20), "trigger": "manual"},
    ],
)
def test_a_run_after_one_that_brings_none_about_is_a_contradiction(
    db: Connection, instance: int, damage: dict[str, object]
) -> None:
    parent = end(db, instance, 11)
    follow(db, parent, [Follower("other")], instance_id=instance, now=NOW)
    assert said(db) == []

    db.execute(update(table).where(table.c.id == parent.id).values(damage))

    assert said(db) == [("comes after a run that has not succeeded, or was due at another time", 1)]


def test_what_a_process_that_is_gone_has_left_is_told_and_no_fault(db: Connection, instance: int) -> None:
    """A daemon recovers it."""
    instance_verbs.stop(db, instance, now=NOW)

    found = audit(db)

    assert found.ok
    assert len(found.open_runs) == 1


def test_the_command_proves_a_ledger_or_lists_what_is_wrong(tmp_path: Path) -> None:
    """One line and 0, or the list and 1."""
    world = World(tmp_path)
    with world.ledger() as connection:
        instance = make_instance(connection)
        job_verbs.see(connection, {"tick": MINUTELY}, now=NOW)
        for minute in (1, 2, 3):
            new = NewRun("tick", at(minute), Trigger.SCHEDULE, RunState.SKIPPED, str(Reason.HELD))
            claim(connection, instance, new)

    whole = world.run("audit")
    shape = world.json("audit", "audit")
    assert (whole.code, whole.err) == (0, "")
    assert whole.out == "every instant has its one row: 3 instants of 1 jobs in 3 rows\n"
    assert (shape["ok"], shape["instants"], shape["rows"]) == (True, 3, 3)

    with world.ledger() as connection:
        connection.execute(delete(table).where(table.c.scheduled_for == at(2)))
        connection.execute(update(instances).values(stopped_at=NOW))
    broken, told = world.run("audit"), world.run("audit", "--json")
    assert (broken.code, told.code) == (1, 1)
    for part in ("tick", "no row", "2026-09-04 08:02:00Z", "no row: 1"):
        assert part in broken.out
    assert world.run("audit", "--since", "2026-09-04T08:02").code == 0


def test_a_ledger_that_is_not_there_has_no_fault(tmp_path: Path) -> None:
    assert World(tmp_path).json("audit", "audit")["ok"]


def test_the_kinds_of_fault_are_those_of_the_schema() -> None:
    document = json.loads((SCHEMAS / "audit.json").read_text())["properties"]

    assert document["faults"]["items"]["properties"]["kind"]["enum"] == list(Kind)
    assert document["counts"]["required"] == list(Kind)
