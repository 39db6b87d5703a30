"""Alerts about what is closed, held, ending, keyless or abandoned, from the rows that the store writes."""

from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import Connection, insert, select
from support.alerting import LOGIN, WATCHED, beat, fail, login, open_alerts, refuse, rows
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND, key_of, make_instance, send

from jobs.alert import Notice
from jobs.attempt import Purpose, Step
from jobs.credential import SecretReference
from jobs.errors import ErrorClass
from jobs.mark import NewMark, Scope
from jobs.providers.pool import Habits
from jobs.providers.registry import Provider
from jobs.providers.secrets import Keyring, SecretReader
from jobs.providers.settle import settle_failure
from jobs.providers.vault import Vault
from jobs.request import ApiMode
from jobs.run import ClaimedRun, Hold, Trigger
from jobs.secret import Redactor, Secret
from jobs.store import alert_facts, credentials, holds, tokens
from jobs.store.alerts import MOST_UNTOLD
from jobs.store.attempts import Failure
from jobs.store.tables import alerts, runs

OPENED, RESOLVED = Notice.OPENED, Notice.RESOLVED
BILLING = NewMark(Scope.GROUP, ErrorClass.QUOTA_BILLING, (HOUR,), code="1113")
DEAD = NewMark(Scope.CREDENTIAL, ErrorClass.AUTH_DEAD, (HOUR,), lasts_from_step=1)
REFUSED = NewMark(Scope.CREDENTIAL, ErrorClass.AUTH, (5 * MINUTE,), lasts_from_step=2)


def held(db: Connection, run_id: int, *, job: str = "digest", now: datetime = NOW) -> None:
    """Hold a job, as the end of that run does."""
    row = {
        "id": run_id,
        "job": job,
        "scheduled_for": now,
        "trigger": Trigger.SCHEDULE,
        "state": "failed",
        "created_at": now,
        "finished_at": now,
    }
    db.execute(insert(runs).values(row))
    run = ClaimedRun(run_id, job, now, Trigger.SCHEDULE, 1)
    holds.hold(db, run, Hold(now + HOUR, "zai/main", "every target is closed"), now=now)


def let_go(db: Connection, instance: int, now: datetime) -> None:
    """End every hold, as time does."""
    for each in holds.held(db).values():
        holds.release(db, each, makes_up=False, instance_id=instance, now=now)


def test_jobs_that_the_same_credentials_hold_are_one_alert_until_one_of_these_answers(db: Connection) -> None:
    """Let go, asked again in vain, held again: nobody is told twice; and a reset ends it."""
    instance = make_instance(db)
    held(db, 1)
    held(db, 2, job="report")
    assert beat(db) == [OPENED]
    assert rows(db, "subject") == [("2 jobs are held: zai/main is closed",)]
    let_go(db, instance, NOW + HOUR)
    assert beat(db, now=NOW + HOUR) == []
    held(db, 3, now=NOW + HOUR)
    assert beat(db, now=NOW + HOUR) == []
    let_go(db, instance, NOW + 2 * HOUR)
    holds.open_up(db, [("zai", "main")], now=NOW + 2 * HOUR)
    assert [beat(db, now=NOW + 2 * HOUR) for _ in range(2)] == [[RESOLVED], []]
    held(db, 4, now=NOW + 3 * HOUR)
    assert beat(db, now=NOW + 3 * HOUR) == [OPENED]


def test_a_balance_that_is_empty_is_told_once_until_something_answers(db: Connection) -> None:
    """The mark lapses, a probe renews it: no news. An answer, or a reset, is the end."""
    key = key_of("main")
    credentials.mark(db, send(db, key), BILLING, now=NOW)
    assert beat(db) == [OPENED]
    assert beat(db, now=NOW + 2 * HOUR) == []
    probe = send(db, key, at=NOW + 3 * HOUR, purpose=Purpose.PROBE)
    credentials.mark(db, probe, replace(BILLING, climbs=False), now=NOW + 3 * HOUR)
    assert beat(db, now=NOW + 3 * HOUR) == []
    credentials.clear_by_success(db, send(db, key, at=NOW + 4 * HOUR))
    assert [beat(db, now=NOW + 4 * HOUR) for _ in range(2)] == [[RESOLVED], []]
    assert rows(db, "subject")[-1] == ("zai/main is no longer closed for money",)


def test_a_reset_ends_an_alert_about_a_credential(db: Connection) -> None:
    credentials.mark(db, send(db, key_of("main")), BILLING, now=NOW)
    beat(db)
    credentials.reset(db, [("zai", "main")], now=NOW + MINUTE)
    assert beat(db, now=NOW + MINUTE) == [RESOLVED]


def test_a_dead_credential_is_told_of_until_another_secret_was_seen(db: Connection) -> None:
    key = key_of("main")
    credentials.mark(db, send(db, key), DEAD, now=NOW)
    assert beat(db) == [OPENED]
    credentials.ensure(db, key, ("another secret",), now=NOW + HOUR)
    assert beat(db, now=NOW + HOUR) == [RESOLVED]


def test_a_key_that_is_refused_is_told_of_only_when_no_time_heals_it(db: Connection) -> None:
    """The first refusal closes it for five minutes; the second for good."""
    key = key_of("main")
    credentials.mark(db, send(db, key), REFUSED, now=NOW)
    assert beat(db) == []
    credentials.mark(db, send(db, key, at=NOW + HOUR), REFUSED, now=NOW + HOUR)
    assert beat(db, now=NOW + HOUR) == [OPENED]


def test_a_login_that_ends_is_told_of_until_it_is_renewed(db: Connection) -> None:
    ending = login(NOW + 3 * DAY)
    credentials.ensure(db, LOGIN, (ending.login_id,), now=NOW)
    tokens.save_login(db, ending)
    assert [beat(db) for _ in range(2)] == [[OPENED], []]
    tokens.save_login(db, login(NOW + 90 * DAY, login_id="login-2"))
    assert [beat(db, now=NOW + HOUR) for _ in range(2)] == [[RESOLVED], []]


def abandoned(db: Connection, run_id: int, **values: object) -> None:
    """Leave an abandoned run."""
    row = {
        "id": run_id,
        "job": "digest",
        "scheduled_for": NOW,
        "trigger": Trigger.SCHEDULE,
        "state": "abandoned",
        "reason": "process_gone",
        "created_at": NOW,
        "finished_at": NOW,
    }
    db.execute(insert(runs).values(row | values))


def test_an_abandoned_run_is_told_of_once_and_has_no_recovery(db: Connection) -> None:
    abandoned(db, 1)
    assert [beat(db), beat(db, now=NOW + HOUR), beat(db, now=NOW + 2 * DAY)] == [[OPENED], [], []]
    assert rows(db, "subject") == [("digest: run 1 was abandoned",)]
    assert alert_facts.facts(db, since=NOW - DAY).abandoned == ()


@pytest.mark.parametrize(
    "values",
    [
        {"finished_at": NOW - DAY},
        {"trigger": Trigger.DRILL},
        {"trigger": Trigger.ASK},
        {"job": "gone"},
        {"state": "failed"},
    ],
)
def test_a_run_that_nobody_waits_for_is_told_to_nobody(db: Connection, values: dict[str, object]) -> None:
    abandoned(db, 1, **values)
    assert beat(db) == []


def test_many_runs_of_one_crash_are_one_message_and_an_alert_each(db: Connection) -> None:
    for number in range(1, 33):
        abandoned(db, number, scheduled_for=NOW + number * SECOND)
    assert beat(db) == [OPENED] * 32
    assert rows(db, "subject") == [("digest: run 1 was abandoned, and 31 more like it",)]
    assert beat(db, now=NOW + HOUR) == []


def test_an_attribution_that_was_refused_is_told_of_once(db: Connection) -> None:
    refuse(db)
    assert [beat(db) for _ in range(2)] == [[OPENED], []]
    assert rows(db, "subject") == [("a mark was refused: attempt 7 had not earned it",)]
    assert "attempt 7 did not earn a mark" in rows(db, "body")[0].body
    assert open_alerts(db) == []
    assert db.execute(select(alerts.c.message)).scalars().all() == [rows(db, "subject")[0].subject]
    refuse(db)
    assert beat(db, now=NOW + MINUTE) == [OPENED]


def test_a_mark_that_is_refused_is_written_down_with_what_settles_its_attempt(db: Connection) -> None:
    """So a process that is killed before it could tell anybody loses nothing; what is undone is not told."""
    attempt = send(db, key_of(group="team"))
    send(db, key_of("other", group="others"))
    provider = Provider(attempt.target.provider, None, ApiMode.CHAT_COMPLETIONS, (attempt.credential,))

    def settle() -> None:
        settle_failure(
            db,
            Vault(SecretReader({}, Redactor()), Keyring([Secret("k" * 32)])),
            provider,
            replace(attempt, credential=key_of("other", group="others")),
            Failure(ErrorClass.AUTH_DEAD, "*/auth", "no such key"),
            wait=None,
            chosen=Step.NEXT_TARGET,
            onward=Step.NEXT_TARGET,
            habits=Habits(),
            now=NOW,
        )

    undone = db.begin_nested()
    settle()
    undone.rollback()
    assert beat(db) == []
    settle()
    assert open_alerts(db) == [f"attribution_refused:{attempt.id}"]
    assert beat(db) == [OPENED]


def test_so_many_refused_attributions_are_kept_for_somebody_to_be_told(db: Connection) -> None:
    """Where nobody is told, they do not grow without an end; those of yesterday are no news."""
    for number in range(MOST_UNTOLD + 1):
        refuse(db, number)
    assert len(open_alerts(db)) == MOST_UNTOLD
    assert beat(db, now=NOW + DAY) == []
    assert open_alerts(db) == []


def test_a_provider_whose_keys_cannot_be_read_is_told_of_until_one_can(db: Connection) -> None:
    """Asked of the environment each time, as every request does."""
    environ: dict[str, str] = {}
    key = replace(key_of("main"), reference=SecretReference("env", "ZAI_KEY"))
    zai = Provider(key.provider, None, ApiMode.CHAT_COMPLETIONS, (key,))
    vault = Vault(SecretReader(environ, Redactor()), Keyring([Secret("k" * 32)]))
    by = replace(WATCHED, providers=(zai,), vault=vault)
    assert [beat(db, by=by) for _ in range(2)] == [[OPENED], []]
    assert "main: the variable ZAI_KEY is not set" in rows(db, "body")[0].body
    environ["ZAI_KEY"] = "a key of zai"
    assert [beat(db, by=by, now=NOW + MINUTE) for _ in range(2)] == [[RESOLVED], []]


def test_what_a_failing_job_is_told_with_is_its_newest_run_that_counts(db: Connection) -> None:
    """Not what was skipped since, nor what somebody has tried by hand."""
    fail(db)
    for run_id, trigger, state in (
        (1, "schedule", "failed"),
        (2, "schedule", "timed_out"),
        (3, "schedule", "skipped"),
        (4, "manual", "failed"),
    ):
        abandoned(db, run_id, trigger=trigger, state=state, reason=None, scheduled_for=NOW + run_id * HOUR)
    beat(db)
    assert "The newest is run 2" in rows(db, "body")[0].body
