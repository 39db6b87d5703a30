"""Alerts in the ledger: told once, reminded of, over once; whoever looks, and however often."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select
from support.alerting import WATCHED, beat, fail, open_alerts, rows, succeed, watched, write
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND

from jobs.alert import Notice
from jobs.delivery.alerts import look
from jobs.store import instances
from jobs.store.tables import alerts as alert_table

OPENED, REMINDER, RESOLVED = Notice.OPENED, Notice.REMINDER, Notice.RESOLVED


def test_a_job_that_fails_is_told_once_to_everybody_and_its_recovery_once(db: Connection) -> None:
    """However often anybody looks, in whichever process."""
    both = watched(to=("ops", "hook"))
    fail(db, 2)
    assert beat(db, by=both) == []
    fail(db, 1)
    assert [beat(db, by=both, now=NOW + each * SECOND) for each in range(3)] == [[OPENED], [], []]
    fail(db, 5)
    assert beat(db, by=both, now=NOW + HOUR) == []
    succeed(db)
    assert [beat(db, by=both, now=NOW + 2 * HOUR) for _ in range(2)] == [[RESOLVED], []]
    assert rows(db, "target", "notice", "state") == [
        ("ops", "opened", "pending"),
        ("hook", "opened", "pending"),
        ("ops", "resolved", "pending"),
        ("hook", "resolved", "pending"),
    ]


def test_each_notice_is_due_at_once_with_its_words_and_a_key_of_its_own(db: Connection) -> None:
    fail(db)
    beat(db, by=watched(to=("ops", "hook")))
    found = rows(db, "idempotency_key", "next_attempt_at", "subject", "body", "attempts", "run_id")
    assert len({each.idempotency_key for each in found}) == 2
    assert {(each.next_attempt_at, each.subject, each.attempts, each.run_id) for each in found} == {
        (NOW, "digest fails: 3 failed runs in a row", 0, None)
    }
    assert all("promptd explain digest" in each.body for each in found)


def test_a_job_that_fails_succeeds_and_fails_is_news_only_after_as_many_failures(db: Connection) -> None:
    fail(db)
    assert beat(db) == [OPENED]
    succeed(db)
    assert beat(db, now=NOW + MINUTE) == [RESOLVED]
    fail(db, 2)
    assert beat(db, now=NOW + 2 * MINUTE) == []
    fail(db, 1)
    assert beat(db, now=NOW + 3 * MINUTE) == [OPENED]


def test_what_lasts_is_reminded_of_once_in_each_interval(db: Connection) -> None:
    """One reminder, also after a week in which nobody looked."""
    fail(db)
    beat(db)
    assert [beat(db, now=NOW + DAY - SECOND), beat(db, now=NOW + DAY), beat(db, now=NOW + DAY)] == [
        [],
        [REMINDER],
        [],
    ]
    assert [beat(db, now=NOW + 8 * DAY) for _ in range(2)] == [[REMINDER], []]
    assert db.execute(select(alert_table.c.reminders)).scalar_one() == 2


@pytest.mark.parametrize("what", [OPENED, REMINDER, RESOLVED])
def test_two_processes_that_have_seen_the_same_tell_it_once(db: Connection, what: Notice) -> None:
    now = NOW
    fail(db)
    if what is not OPENED:
        beat(db)
        now = NOW + DAY
    if what is RESOLVED:
        succeed(db)
    mine, other = (look(db, WATCHED, instance_id=0, now=now) for _ in range(2))
    assert write(db, mine, now=now) == [what]
    assert write(db, other, now=now + SECOND) == []


def test_what_was_told_and_over_since_a_process_has_looked_is_not_told_again(db: Connection) -> None:
    """It was stopped between its look and its write, say."""
    fail(db)
    stale = look(db, WATCHED, instance_id=0, now=NOW)
    beat(db)
    succeed(db)
    assert beat(db, now=NOW + MINUTE) == [RESOLVED]
    assert write(db, stale, now=NOW + 2 * MINUTE) == []
    assert open_alerts(db) == []


def test_a_job_that_leaves_the_configuration_is_told_of_no_more(db: Connection) -> None:
    fail(db)
    beat(db)
    gone = replace(WATCHED, jobs={})
    assert beat(db, by=gone, now=NOW + MINUTE) == []
    assert open_alerts(db) == []


def test_what_was_closed_without_a_word_is_over_without_one_too(db: Connection) -> None:
    """Whoever still knows the job, and sees it succeed, comes too late."""
    fail(db)
    beat(db)
    succeed(db)
    stale = look(db, WATCHED, instance_id=0, now=NOW + MINUTE)
    beat(db, by=replace(WATCHED, jobs={}), now=NOW + MINUTE)
    assert write(db, stale, now=NOW + MINUTE) == []


def test_a_recovery_is_told_also_beside_a_daemon_that_does_not_know_the_job(db: Connection) -> None:
    """That one leaves the alert to whoever may know the job, for as long as such a one is there."""
    knows, other = (instances.register(db, kind="daemon", version="0", now=NOW) for _ in range(2))
    gone = replace(WATCHED, jobs={})
    fail(db)
    told = beat(db, instance_id=knows)
    told += beat(db, by=gone, now=NOW + SECOND, instance_id=other)
    succeed(db)
    told += beat(db, by=gone, now=NOW + 2 * SECOND, instance_id=other)
    told += beat(db, now=NOW + 3 * SECOND, instance_id=knows)
    assert told == [OPENED, RESOLVED]


def test_a_recovery_is_told_by_a_daemon_that_was_down_while_another_did_not_know_the_job(
    db: Connection,
) -> None:
    """The job has succeeded before that one is back: by hand, say."""
    knows, other = (instances.register(db, kind="daemon", version="0", now=NOW) for _ in range(2))
    gone = replace(WATCHED, jobs={})
    fail(db)
    assert beat(db, instance_id=knows) == [OPENED]
    instances.stop(db, knows, now=NOW + MINUTE)
    assert beat(db, by=gone, now=NOW + HOUR, instance_id=other) == []
    succeed(db)
    assert beat(db, by=gone, now=NOW + 2 * HOUR, instance_id=other) == []
    back = instances.register(db, kind="daemon", version="0", now=NOW + 3 * HOUR)
    assert beat(db, now=NOW + 3 * HOUR, instance_id=back) == [RESOLVED]


def test_what_only_a_daemon_knows_that_is_down_for_a_day_is_told_of_no_more(db: Connection) -> None:
    knows, other = (instances.register(db, kind="daemon", version="0", now=NOW) for _ in range(2))
    gone = replace(WATCHED, jobs={})
    fail(db)
    assert beat(db, instance_id=knows) == [OPENED]
    instances.stop(db, knows, now=NOW + MINUTE)
    assert beat(db, by=gone, now=NOW + DAY, instance_id=other) == []
    assert open_alerts(db) == ["job_failing:digest"]
    assert beat(db, by=gone, now=NOW + DAY + 2 * MINUTE, instance_id=other) == []
    assert open_alerts(db) == []


def test_two_processes_with_other_configurations_do_not_tell_each_other_news(db: Connection) -> None:
    """One knows the job and the other does not; people are told once, and reminded when it is time."""
    gone = replace(WATCHED, jobs={})
    fail(db)
    told = []
    for number in range(20):
        now = NOW + number * 5 * SECOND
        told += beat(db, now=now) + beat(db, by=gone, now=now + SECOND)
    assert told == [OPENED]
    assert beat(db, now=NOW + HOUR) == []
    assert beat(db, now=NOW + DAY) == [REMINDER]


def test_a_job_that_comes_back_after_the_interval_is_told_of_again(db: Connection) -> None:
    fail(db)
    beat(db)
    beat(db, by=replace(WATCHED, jobs={}), now=NOW + MINUTE)
    assert beat(db, now=NOW + 2 * DAY) == [OPENED]


def test_an_alert_survives_a_clock_that_is_set_back(db: Connection) -> None:
    """It is over, or dated anew: no row says that it was told before it opened."""
    fail(db)
    beat(db)
    assert beat(db, now=NOW - 3650 * DAY) == []
    assert beat(db, now=NOW - 3649 * DAY) == [REMINDER]
    fail(db, job="report")
    assert beat(db, now=NOW) == [OPENED, REMINDER]
    succeed(db, "report")
    assert beat(db, now=NOW - HOUR) == [RESOLVED]


def test_a_process_that_was_no_other_daemon_is_no_reason_to_wait(db: Connection) -> None:
    """A command, or this daemon itself."""
    only = instances.register(db, kind="daemon", version="0", now=NOW)
    command = instances.register(db, kind="command", version="0", now=NOW)
    instances.stop(db, command, now=NOW)
    fail(db)
    assert beat(db, instance_id=only) == [OPENED]
    assert beat(db, by=replace(WATCHED, jobs={}), now=NOW + MINUTE, instance_id=only) == []
    assert open_alerts(db) == []
