"""Claims: who moves a cursor on wins its instants, and what becomes of them beside other runs."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from support.claiming import HOURLY, claim, claim_of
from support.ledger import HOUR, MINUTE, NOW, SECOND, make_instance, target_of

from jobs.errors import ErrorClass, FenceLost, NotYet
from jobs.run import (
    Bounds,
    Budget,
    ClaimedRun,
    Concurrency,
    Follower,
    Outcome,
    Reason,
    RunState,
    Served,
    Trigger,
)
from jobs.store import claims, runs
from jobs.store import jobs as job_verbs
from jobs.store.claims import Claimed, JobClaim, NewRun
from jobs.store.followers import follow
from jobs.store.tables import attempts, schedule_periods
from jobs.store.tables import runs as table

RACERS, JOBS = 4, 10
INSTANTS = {"sqlite": 30, "postgresql": 10}  # a server takes turns more slowly than a file
ANSWER = Outcome.succeeded("hello", served=Served("zai", "glm-5", "key"))


@pytest.fixture
def instance(db: Connection) -> int:
    """Return this process's instance."""
    return make_instance(db)


def due(job: str = "digest", minutes: int = 0, trigger: Trigger = Trigger.SCHEDULE) -> NewRun:
    """Return an instant that is to be run."""
    return NewRun(job, NOW + minutes * MINUTE, trigger)


def begin(db: Connection, instance: int, run: ClaimedRun) -> ClaimedRun:
    """Start a run's next try."""
    return runs.start(db, run, primary=target_of(), instance_id=instance, now=NOW)


def end_all(db: Connection) -> None:
    """End every run that is open."""
    db.execute(update(table).where(table.c.finished_at.is_(None)).values(state="cancelled", finished_at=NOW))


def told(db: Connection, job: str = "digest") -> list[tuple[str, str | None]]:
    """Return state and reason of a job's rows, in order of their instants."""
    query = select(table.c.state, table.c.reason).where(table.c.job == job)
    return [tuple(row) for row in db.execute(query.order_by(table.c.scheduled_for, table.c.id))]


def test_four_processes_race_for_claims_and_each_is_won_once(
    engine: Engine, database: str, kind: str
) -> None:
    """Whoever moves the cursor on has its instants: no leader. Nobody leaves one out."""
    with engine.begin() as connection:
        job_verbs.see(connection, {f"job-{number}": HOURLY for number in range(JOBS)}, now=NOW)
    words = [sys.executable, "-m", "support.racer", database, str(INSTANTS[kind])]
    tests = Path(__file__).parents[1]
    racers = [
        subprocess.Popen(
            [*words, str(number / RACERS)],
            cwd=tests,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(RACERS)
    ]
    for word in ("has planned", "has begun"):
        let_go_on(racers, word)
    ended = [racer.communicate(timeout=300) for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * RACERS, ended
    said = [out.split("\n") for out, _ in ended]
    won = Counter(line for lines in said for line in lines if line.isdigit())
    in_vain = [int(line.split()[1]) for lines in said for line in lines if line.startswith("stale")]
    with engine.connect() as connection:
        query = select(table.c.job, table.c.scheduled_for)
        rows = [tuple(row) for row in connection.execute(query)]
    assert len(won) == len(rows) == JOBS * INSTANTS[kind]
    assert set(won.values()) == {1}
    assert set(rows) == {
        (f"job-{number}", NOW + second * SECOND)
        for number in range(JOBS)
        for second in range(1, INSTANTS[kind] + 1)
    }
    assert all(len(lines) > 2 for lines in said), "each has won its first claim"
    assert min(in_vain) > 0, "each has lost those that others have made first"


def let_go_on(racers: Sequence["subprocess.Popen[str]"], word: str) -> None:
    """Wait until all have come so far, then let them go on."""
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == f"{word}\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go on\n")
        racer.stdin.flush()


def test_what_was_planned_from_an_older_cursor_is_stale_and_writes_nothing(
    db: Connection, instance: int
) -> None:
    """Two daemons plan the same instants; the second one plans anew."""
    planned = claim_of(db, due(), due("other"))
    claim(db, instance, due())
    end_all(db)

    second = claims.claim(db, planned, instance_id=instance, now=NOW)

    assert second.stale == ("digest",)
    assert [run.job for run in second.ours] == ["other"]
    assert told(db) == [("cancelled", None)]


@pytest.mark.parametrize("verb", ["pause", "see", "gone"])
def test_what_was_planned_before_a_pause_or_another_timetable_is_stale(
    db: Connection, instance: int, verb: str
) -> None:
    """What it has decided may not be owed any more."""
    planned = claim_of(db, due(minutes=1))
    match verb:
        case "pause":
            job_verbs.pause(db, "digest", reason=None, now=NOW)
        case "see":
            job_verbs.see(db, {"digest": HOURLY.replace("0 *", "5 *")}, now=NOW)
        case _:
            job_verbs.see(db, {}, now=NOW)

    assert claims.claim(db, planned, instance_id=instance, now=NOW) == Claimed(stale=("digest",))
    assert told(db) == []


def test_a_job_that_nobody_has_seen_is_not_claimed(db: Connection, instance: int) -> None:
    (planned,) = claim_of(db, due())

    claimed = claims.claim(db, [replace(planned, job="nobody")], instance_id=instance, now=NOW)

    assert claimed == Claimed(stale=("nobody",))


def test_an_instant_that_has_a_row_keeps_it(db: Connection, instance: int) -> None:
    """Whatever the cursor says: it is in neither list."""
    claim(db, instance, due())
    end_all(db)

    again = claim(db, instance, due(), due(trigger=Trigger.CATCH_UP))

    assert again == Claimed()
    assert told(db) == [("cancelled", None)]


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


def test_an_instant_that_never_runs_is_born_final(db: Connection, instance: int) -> None:
    """A row may span several: it stands at the last, and says the first and how many."""
    missed = NewRun("digest", NOW, Trigger.CATCH_UP, RunState.MISSED, str(Reason.COALESCED), NOW - HOUR, 3600)

    assert claim(db, instance, missed) == Claimed(final=(missed,))
    row = db.execute(select(table)).one()
    assert (row.state, row.reason, row.finished_at) == ("missed", "coalesced", NOW)
    assert (row.span_first, row.span_count) == (NOW - HOUR, 3600)


def test_many_claims_fit_one_transaction(db: Connection, instance: int) -> None:
    """More than SQLite takes variables in one statement."""
    names = [f"job-{number}" for number in range(1200)]
    seen = job_verbs.see(db, dict.fromkeys(names, HOURLY), now=NOW - HOUR)
    planned = [
        JobClaim(name, seen[name].decided_until, seen[name].period_id, NOW, (due(name),)) for name in names
    ]

    claimed = claims.claim(db, planned, instance_id=instance, now=NOW)

    assert [run.job for run in claimed.ours] == [f"job-{number}" for number in range(1200)]


def test_claims_and_cursor_are_one_transaction(db: Connection, instance: int) -> None:
    """A claim that fails leaves the instants owed."""
    wrong = NewRun("digest", NOW + MINUTE, Trigger.SCHEDULE, RunState.SKIPPED, span_count=2)
    planned = claim_of(db, wrong)

    with pytest.raises(IntegrityError), db.begin_nested():
        claims.claim(db, planned, instance_id=instance, now=NOW)

    assert job_verbs.states(db)["digest"].cursor == planned[0].cursor


def test_the_pid_of_this_process_is_its_owner(db: Connection, instance: int) -> None:
    """So that others can see whether it is gone."""
    claim(db, instance, due())

    assert os.getpid() in {row.pid for row in db.exec_driver_sql("SELECT pid FROM instances")}


def test_a_job_that_forbids_overlap_skips_its_newcomers_in_one_row(db: Connection, instance: int) -> None:
    """`skipped: overlap` is a row too, of as many instants as were skipped in a row."""
    claim(db, instance, due())

    later = claim(db, instance, due(minutes=1), due(minutes=2), due(minutes=3), due("other", minutes=1))

    assert [run.job for run in later.ours] == ["other"]
    (row,) = later.final
    assert (row.state, row.reason) == ("skipped", "overlap")
    assert (row.span_first, row.scheduled_for, row.span_count) == (NOW + MINUTE, NOW + 3 * MINUTE, 3)


def test_spans_that_the_planner_made_are_joined_with_what_overlaps_only_for_one_reason(
    db: Connection, instance: int
) -> None:
    """Two reasons are two rows."""
    paused = NewRun("digest", NOW, Trigger.SCHEDULE, RunState.SKIPPED, "paused", NOW - MINUTE, 2)
    claim(db, instance, due(minutes=-9))

    claimed = claim(db, instance, paused, due(minutes=1), due(minutes=2))

    assert [(row.reason, row.span_count) for row in claimed.final] == [("paused", 2), ("overlap", 2)]


def test_two_instants_of_one_claim_overlap_too(db: Connection, instance: int) -> None:
    """The first one runs."""
    claimed = claim(db, instance, due(), due(minutes=1))

    assert [run.scheduled_for for run in claimed.ours] == [NOW]
    assert [row.scheduled_for for row in claimed.final] == [NOW + MINUTE]


@pytest.mark.parametrize("waits", ["queued", "running", "between tries"])
def test_overlap_is_a_run_that_has_not_ended_whatever_it_waits_for(
    db: Connection, instance: int, waits: str
) -> None:
    """A run between two tries goes on."""
    (run,) = claim(db, instance, due()).ours
    if waits != "queued":
        run = begin(db, instance, run)
    if waits == "between tries":
        runs.requeue(db, run, again(), not_before=NOW + HOUR, now=NOW)

    assert claim(db, instance, due(minutes=1)).ours == ()
    assert told(db)[-1] == ("skipped", "overlap")


def again() -> Outcome:
    """Return the end of a try that another one follows."""
    return Outcome.again(ErrorClass.OVERLOADED, "try later", not_before=NOW + HOUR)


def test_a_job_that_allows_overlap_runs_beside_itself(db: Connection, instance: int) -> None:
    bounds = Bounds(Concurrency.ALLOW)

    claimed = claim(db, instance, due(), due(minutes=1), bounds=bounds)

    assert len(claimed.ours) == 2
    assert [begin(db, instance, run).tries for run in claimed.ours] == [1, 1]


def test_a_job_that_queues_lets_one_newcomer_wait_until_the_first_has_ended(
    db: Connection, instance: int
) -> None:
    """The third is skipped; the second cannot begin before."""
    bounds = Bounds(Concurrency.QUEUE)
    (first,) = claim(db, instance, due(), bounds=bounds).ours
    first = begin(db, instance, first)

    claimed = claim(db, instance, due(minutes=1), due(minutes=2), bounds=bounds)

    (second,) = claimed.ours
    assert second.behind
    assert [row.reason for row in claimed.final] == ["overlap"]
    with pytest.raises(NotYet), db.begin_nested():
        begin(db, instance, second)
    runs.finish(db, first, ANSWER, now=NOW)
    assert begin(db, instance, second).tries == 1


def test_a_job_that_replaces_asks_for_the_end_of_what_runs_and_waits_for_it(
    db: Connection, instance: int
) -> None:
    """What waits already is ended at once; the newest follows."""
    bounds = Bounds(Concurrency.REPLACE)
    (first,) = claim(db, instance, due(), bounds=bounds).ours
    first = begin(db, instance, first)
    (second,) = claim(db, instance, due(minutes=1), bounds=bounds).ours

    third = claim(db, instance, due(minutes=2), bounds=bounds)

    assert third.replaced == (second.id, first.id)
    assert runs.to_be_cancelled(db, instance) == {first.id: Reason.REPLACED}
    assert told(db) == [("running", None), ("cancelled", "replaced"), ("queued", None)]
    with pytest.raises(FenceLost), db.begin_nested():
        begin(db, instance, second)
    runs.finish(db, first, Outcome.cancelled(Reason.REPLACED), now=NOW)
    assert begin(db, instance, third.ours[0]).tries == 1


def test_what_is_caught_up_runs_one_after_the_other_whatever_the_concurrency(
    db: Connection, instance: int
) -> None:
    """Oldest first."""
    caught = [replace(due(minutes=number, trigger=Trigger.CATCH_UP), behind=True) for number in range(3)]
    claimed = claim(db, instance, *caught, bounds=Bounds(Concurrency.ALLOW))

    begun = begin(db, instance, claimed.ours[0])
    for later in claimed.ours[1:]:
        with pytest.raises(NotYet), db.begin_nested():
            begin(db, instance, later)
    runs.finish(db, begun, ANSWER, now=NOW)

    with pytest.raises(NotYet), db.begin_nested():
        begin(db, instance, claimed.ours[2])
    assert begin(db, instance, claimed.ours[1]).tries == 1


def test_what_is_caught_up_is_not_replaced_by_what_falls_due_meanwhile(db: Connection, instance: int) -> None:
    """The newest instant waits behind it, and replaces what waits there already."""
    caught = [replace(due(minutes=number, trigger=Trigger.CATCH_UP), behind=True) for number in range(3)]
    bounds = Bounds(Concurrency.REPLACE)
    claimed = claim(db, instance, *caught, due(minutes=3), bounds=bounds)
    begin(db, instance, claimed.ours[0])

    newest = claim(db, instance, due(minutes=4), bounds=bounds)

    assert told(db) == [
        ("running", None),
        *[("queued", None)] * 2,
        ("cancelled", "replaced"),
        ("queued", None),
    ]
    assert runs.to_be_cancelled(db, instance) == {}
    with pytest.raises(NotYet), db.begin_nested():
        begin(db, instance, newest.ours[0])


def test_max_runs_ends_the_schedule_with_its_last_run(db: Connection, instance: int) -> None:
    """Nothing later is owed: no row, and the period ends at the last instant that was."""
    bounds = Bounds(Concurrency.ALLOW, max_runs=2)

    claimed = claim(db, instance, *(due(minutes=number) for number in range(5)), bounds=bounds)

    assert [run.scheduled_for for run in claimed.ours] == [NOW, NOW + MINUTE]
    assert told(db) == [("queued", None)] * 2
    state = job_verbs.states(db)["digest"]
    assert (state.cursor, state.runs_started, state.periods) == (NOW + MINUTE, 2, ())


def test_what_is_skipped_does_not_count_for_max_runs(db: Connection, instance: int) -> None:
    """N started runs, not N instants."""
    bounds = Bounds(Concurrency.FORBID, max_runs=2)

    claim(db, instance, due(), due(minutes=1), bounds=bounds)
    end_all(db)
    claim(db, instance, due(minutes=2), due(minutes=3), bounds=bounds)

    assert told(db) == [("cancelled", None), ("skipped", "overlap"), ("queued", None)]


def test_a_run_that_was_cancelled_before_it_began_does_not_count_for_max_runs(
    db: Connection, instance: int
) -> None:
    """The schedule that had ended with it goes on from now, and owes nothing for the time between."""
    bounds = Bounds(max_runs=1)
    (run,) = claim(db, instance, due(), bounds=bounds).ours
    ended = job_verbs.states(db)["digest"]

    assert runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW + HOUR)

    state = job_verbs.states(db)["digest"]
    assert ended.periods == ()
    assert [(each.since, each.until) for each in state.periods] == [(NOW + HOUR, None)]
    assert (state.runs_started, state.period_id) == (0, state.periods[0].id)
    assert len(claim(db, instance, due(minutes=120), bounds=bounds).ours) == 1


def test_a_schedule_that_goes_on_after_its_end_is_still_paused(db: Connection, instance: int) -> None:
    (run,) = claim(db, instance, due(), bounds=Bounds(max_runs=1)).ours
    job_verbs.pause(db, "digest", reason=None, now=NOW)

    runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW + HOUR)

    assert [each.paused for each in job_verbs.states(db)["digest"].periods] == [True]


def test_a_run_that_has_begun_once_counts_even_when_it_is_cancelled_between_its_tries(
    db: Connection, instance: int
) -> None:
    (run,) = claim(db, instance, due(), bounds=Bounds(max_runs=1)).ours
    runs.requeue(db, begin(db, instance, run), again(), not_before=NOW + HOUR, now=NOW)

    assert runs.cancel_queued(db, run.id, Reason.OPERATOR, now=NOW)

    assert job_verbs.states(db)["digest"].runs_started == 1
    assert job_verbs.states(db)["digest"].periods == ()


def test_a_run_that_was_replaced_before_it_began_does_not_count_either(db: Connection, instance: int) -> None:
    bounds = Bounds(Concurrency.REPLACE, max_runs=2)

    for minutes in range(3):
        claim(db, instance, due(minutes=minutes), bounds=bounds)

    assert job_verbs.states(db)["digest"].runs_started == 1
    assert [each.until for each in job_verbs.states(db)["digest"].periods] == [None]


def test_a_schedule_that_others_have_brought_to_its_end_meanwhile_starts_nothing_more(
    db: Connection, instance: int
) -> None:
    """What was planned before that is stale: nothing is owed any more, and no row is made."""
    bounds = Bounds(Concurrency.ALLOW, max_runs=2)
    claim(db, instance, due(), bounds=bounds)
    planned = claim_of(db, due(minutes=1), bounds=bounds)
    parent = runs.add(db, job="parent", trigger=Trigger.MANUAL, instance_id=instance, now=NOW)
    follow(db, parent, [Follower("digest", bounds)], instance_id=instance, now=NOW)

    claimed = claims.claim(db, planned, instance_id=instance, now=NOW + MINUTE)

    assert claimed == Claimed(stale=("digest",))
    assert job_verbs.states(db)["digest"].runs_started == 2
    assert told(db) == [("queued", None)] * 2


def test_of_runs_that_replace_each_other_in_one_claim_the_newest_begins(
    db: Connection, instance: int
) -> None:
    """What was missed stays so, and what is caught up in order stays in order."""
    missed = replace(due(minutes=1), state=RunState.MISSED, reason="late")
    caught = [replace(due(minutes=number, trigger=Trigger.CATCH_UP), behind=True) for number in (7, 8)]
    bounds = Bounds(Concurrency.REPLACE)
    (first,) = claim(db, instance, due(), bounds=bounds).ours
    begin(db, instance, first)

    claimed = claim(db, instance, missed, *(due(minutes=number) for number in (2, 3, 4)), bounds=bounds)

    assert [(row.scheduled_for, row.reason) for row in claimed.final] == [
        (NOW + MINUTE, "late"),
        (NOW + 3 * MINUTE, "overlap"),
    ]
    assert ([run.scheduled_for for run in claimed.ours], claimed.replaced) == (
        [NOW + 4 * MINUTE],
        (first.id,),
    )
    assert len(claim(db, instance, *caught, bounds=bounds).ours) == 2


def test_max_runs_that_is_raised_begins_the_schedule_anew(db: Connection, instance: int) -> None:
    """It is another timetable: nothing is owed from before, and what has run counts."""
    claim(db, instance, due(), bounds=Bounds(max_runs=1))

    more = HOURLY.replace("}", ',"max_runs":3}')
    job_verbs.see(db, {"digest": more}, now=NOW + HOUR)

    state = job_verbs.states(db)["digest"]
    assert [(each.since, each.until, each.timetable) for each in state.periods] == [(NOW + HOUR, None, more)]
    assert state.runs_started == 1


def spend(db: Connection, run: ClaimedRun, tokens: int) -> None:
    """Write that a run's request has used so many tokens."""
    row = {
        "run_id": run.id, "try": 1, "ordinal": 1, "purpose": "main", "target_index": 0, "provider": "zai",
        "model": "m", "base_url": "u", "outcome": "passed_over", "started_at": NOW, "output_tokens": tokens,
    }  # fmt: skip
    db.execute(insert(attempts).values(row))


def test_no_run_is_started_past_the_days_tokens(db: Connection, instance: int) -> None:
    """What was used before the day began does not count."""
    (run,) = claim(db, instance, due()).ours
    spend(db, run, 100)
    end_all(db)

    def claimed(tokens: int, minutes: int, *, since: int = 0) -> Claimed:
        bounds = Bounds(budget=Budget(tokens, NOW + since * MINUTE))
        return claim(db, instance, due(minutes=minutes), bounds=bounds)

    assert [row.reason for row in claimed(100, 1).final] == ["budget"]
    assert len(claimed(101, 2).ours) == 1
    end_all(db)
    assert len(claimed(100, 3, since=1).ours) == 1


@pytest.mark.parametrize(("reserved", "begun"), [(0, 4), (30, 2), (100, 1)])
def test_what_goes_on_beside_a_run_reserves_its_part_of_the_days_tokens(
    db: Connection, instance: int, reserved: int, begun: int
) -> None:
    """A run that waits for the others is judged by what they will have used."""
    budget = Budget(50, NOW, reserved)
    caught = replace(due(minutes=9, trigger=Trigger.CATCH_UP), behind=True)
    bounds = Bounds(Concurrency.ALLOW, budget=budget)

    claimed = claim(db, instance, *(due(minutes=number) for number in range(4)), bounds=bounds)

    assert len(claimed.ours) == begun
    assert len(claim(db, instance, caught, bounds=bounds).ours) == 1


def test_the_newest_period_is_what_a_claim_is_compared_with(db: Connection, instance: int) -> None:
    """Its id is never given again, not even after it was removed."""
    claim(db, instance, due())
    first = job_verbs.states(db)["digest"].period_id
    job_verbs.pause(db, "digest", reason=None, now=NOW + 9 * HOUR)  # lies ahead of what is decided
    job_verbs.see(db, {"digest": None}, now=NOW + MINUTE)

    kept = db.execute(select(schedule_periods.c.id).order_by(schedule_periods.c.id)).scalars().all()
    assert kept[0] == first
    assert job_verbs.states(db)["digest"].period_id == kept[-1] > first + 1
