"""Which timetable was in force when: first sight, changes, pauses, what is gone and comes back."""

from datetime import datetime

import pytest
from sqlalchemy import Connection, func, select, update
from support.claiming import DAILY, HOURLY, claim
from support.ledger import HOUR, MINUTE, NOW, SECOND, make_instance

from jobs.run import Trigger
from jobs.store import jobs as job_verbs
from jobs.store.claims import NewRun
from jobs.store.jobs import JobState
from jobs.store.tables import jobs, schedule_periods

Told = tuple[datetime, datetime | None, str | None, bool]


def see(db: Connection, *, at: datetime, **timetables: str | None) -> dict[str, JobState]:
    """Take note of what the files say."""
    return job_verbs.see(db, timetables, now=at)


def periods(db: Connection, job: str = "digest") -> list[Told]:
    """Return a job's periods as they are stored, oldest first."""
    query = select(*(schedule_periods.c[name] for name in ("since", "until", "timetable", "paused")))
    return [tuple(row) for row in db.execute(query.where(schedule_periods.c.job == job).order_by("id"))]


def decide(db: Connection, at: datetime) -> None:
    """Let everything up to an instant be decided."""
    claim(db, make_instance(db), NewRun("digest", at, Trigger.SCHEDULE))


def test_a_job_owes_nothing_from_before_its_first_sight(db: Connection) -> None:
    """A cursor begins where the schedule does; the newest period is the job's own."""
    state = see(db, at=NOW, digest=HOURLY)["digest"]

    assert (state.first_seen_at, state.cursor, state.decided_until) == (NOW, NOW, NOW)
    assert [(each.since, each.until, each.timetable) for each in state.periods] == [(NOW, None, HOURLY)]
    assert state.period_id == state.periods[0].id


@pytest.mark.parametrize("spelled", [HOURLY, '{ "timezone": "Etc/UTC", "lines": ["0 * * * *"] }'])
def test_a_timetable_that_says_the_same_changes_nothing(db: Connection, spelled: str) -> None:
    """However its JSON is spaced and ordered."""
    before = see(db, at=NOW, digest=HOURLY)

    assert see(db, at=NOW + HOUR, digest=spelled) == before


def test_another_timetable_owes_nothing_from_before_and_the_former_one_nothing_undecided(
    db: Connection,
) -> None:
    see(db, at=NOW, digest=HOURLY)
    decide(db, NOW + HOUR)

    changed = see(db, at=NOW + 3 * HOUR, digest=DAILY)["digest"]

    assert periods(db) == [(NOW, NOW + HOUR, HOURLY, False), (NOW + 3 * HOUR, None, DAILY, False)]
    assert (changed.cursor, changed.first_seen_at) == (NOW + 3 * HOUR, NOW)
    assert [each.timetable for each in changed.periods] == [DAILY]
    assert db.execute(select(func.count()).select_from(jobs)).scalar_one() == 1


def test_a_job_that_is_gone_owes_nothing_for_that_time_and_comes_back_as_it_was(db: Connection) -> None:
    """It is gone once, however often it is looked for."""
    see(db, at=NOW, digest=HOURLY)
    for minutes in (1, 2):
        assert see(db, at=NOW + minutes * MINUTE) == {}

    back = see(db, at=NOW + HOUR, digest=HOURLY)["digest"]

    assert periods(db) == [
        (NOW, NOW, HOURLY, False),
        (NOW + MINUTE, NOW + MINUTE, None, False),
        (NOW + HOUR, None, HOURLY, False),
    ]
    assert (back.cursor, back.first_seen_at) == (NOW + HOUR, NOW)


def test_a_clock_that_was_set_back_begins_nothing_before_what_is_decided(db: Connection) -> None:
    """Neither a change nor a pause: what has rows already is not owed again, and not paused afterwards."""
    see(db, at=NOW, digest=HOURLY)
    decide(db, NOW + HOUR)

    see(db, at=NOW - HOUR, digest=DAILY)
    job_verbs.pause(db, "digest", reason=None, now=NOW - HOUR)

    assert periods(db) == [
        (NOW, NOW + HOUR, HOURLY, False),
        (NOW + HOUR, NOW + HOUR, DAILY, False),
        (NOW + HOUR, None, DAILY, True),
    ]
    assert job_verbs.states(db)["digest"].cursor == NOW + HOUR


def test_a_pause_is_a_period_of_the_same_timetable_from_its_moment_on(db: Connection) -> None:
    """What fell due before it is owed still."""
    see(db, at=NOW, digest=HOURLY)

    assert job_verbs.pause(db, "digest", reason="too loud", now=NOW + 2 * HOUR)
    paused = job_verbs.states(db)["digest"]
    assert job_verbs.resume(db, "digest", now=NOW + 3 * HOUR)

    assert (paused.paused_at, paused.pause_reason) == (NOW + 2 * HOUR, "too loud")
    assert paused.period_id == paused.periods[-1].id
    assert periods(db) == [
        (NOW, NOW + 2 * HOUR, HOURLY, False),
        (NOW + 2 * HOUR, NOW + 3 * HOUR, HOURLY, True),
        (NOW + 3 * HOUR, None, HOURLY, False),
    ]
    state = job_verbs.states(db)["digest"]
    assert (state.paused_at, state.pause_reason, state.cursor) == (None, None, NOW)
    assert len(state.periods) == 3


def test_a_pause_that_comes_when_more_was_decided_than_its_moment_begins_after_that(db: Connection) -> None:
    """The clock is asked before the lock is had."""
    see(db, at=NOW, digest=HOURLY)
    decide(db, NOW + SECOND)

    job_verbs.pause(db, "digest", reason=None, now=NOW)

    assert periods(db)[-1] == (NOW + SECOND, None, HOURLY, True)


def test_pausing_twice_and_resuming_what_runs_is_told_and_changes_nothing(db: Connection) -> None:
    see(db, at=NOW, digest=HOURLY)
    assert not job_verbs.resume(db, "digest", now=NOW)
    assert job_verbs.pause(db, "digest", reason="first", now=NOW)
    before = periods(db)

    assert not job_verbs.pause(db, "digest", reason="second", now=NOW + HOUR)
    assert not job_verbs.pause(db, "nobody", reason=None, now=NOW)

    assert periods(db) == before
    assert job_verbs.states(db)["digest"].pause_reason == "first"


def test_the_hold_of_a_job_that_is_gone_is_forgotten(db: Connection) -> None:
    """Nobody waits for what it was to make up for; a job without a schedule is held no less."""
    see(db, at=NOW, digest=HOURLY, asked=None)
    db.execute(update(jobs).values(held_until=NOW + HOUR, hold_key="zai/key"))

    see(db, at=NOW + MINUTE, asked=None)

    held = select(jobs.c.name, jobs.c.held_until).where(jobs.c.hold_key.is_not(None))
    assert [tuple(row) for row in db.execute(held)] == [("asked", NOW + HOUR)]


def test_a_pause_outlives_another_timetable_and_being_gone(db: Connection) -> None:
    """Files say what a job is, not whether somebody has paused it."""
    see(db, at=NOW, digest=HOURLY)
    job_verbs.pause(db, "digest", reason=None, now=NOW)

    see(db, at=NOW + HOUR, digest=DAILY)
    see(db, at=NOW + 2 * HOUR)
    state = see(db, at=NOW + 3 * HOUR, digest=DAILY)["digest"]

    assert state.paused_at == NOW
    assert state.periods[-1].paused


def test_periods_that_lie_ahead_of_what_is_decided_are_owed_no_more_after_a_change(db: Connection) -> None:
    """A daemon that was away: the pause in between had nothing decided."""
    see(db, at=NOW, digest=HOURLY)
    job_verbs.pause(db, "digest", reason=None, now=NOW + HOUR)
    job_verbs.resume(db, "digest", now=NOW + 2 * HOUR)

    see(db, at=NOW + 5 * HOUR, digest=DAILY)

    assert periods(db) == [(NOW, NOW, HOURLY, False), (NOW + 5 * HOUR, None, DAILY, False)]


def test_a_schedule_that_came_to_its_end_is_not_begun_anew_by_a_pause(db: Connection) -> None:
    """Nor does looking at the files again do that."""
    see(db, at=NOW, digest=HOURLY)
    job_verbs.end_schedule(db, "digest", at=NOW + HOUR)

    job_verbs.pause(db, "digest", reason=None, now=NOW + 2 * HOUR)
    job_verbs.resume(db, "digest", now=NOW + 3 * HOUR)
    see(db, at=NOW + 4 * HOUR, digest=HOURLY)

    assert periods(db) == [(NOW, NOW + HOUR, HOURLY, False)]


def test_a_job_that_is_run_by_hand_before_a_daemon_saw_it_is_seen_once(db: Connection) -> None:
    job_verbs.see_one(db, "digest", HOURLY, now=NOW)
    job_verbs.see_one(db, "digest", DAILY, now=NOW + HOUR)

    assert periods(db) == [(NOW, None, HOURLY, False)]


def test_many_jobs_are_seen_and_gone_in_portions(db: Connection) -> None:
    """More than SQLite takes variables in one statement."""
    many = {f"job-{number}": HOURLY for number in range(1200)}

    assert len(job_verbs.see(db, many, now=NOW)) == 1200
    assert job_verbs.see(db, {}, now=NOW + HOUR) == {}

    open_ones = select(func.count()).where(
        schedule_periods.c.until.is_(None), schedule_periods.c.timetable.is_(None)
    )
    assert db.execute(open_ones).scalar_one() == 1200


def test_jobs_that_are_paused_and_held_are_counted(db: Connection) -> None:
    see(db, at=NOW, digest=HOURLY, report=HOURLY)
    job_verbs.pause(db, "digest", reason=None, now=NOW)

    assert job_verbs.closed_jobs(db, now=NOW) == {"paused": 1, "held": 0}
