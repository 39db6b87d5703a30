"""What is told of what is wrong: pure rules over facts, policy and the time."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import pytest
from support.alerting import WATCHED, closed, login, standing, watched
from support.ledger import DAY, HOUR, MINUTE, NOW

from jobs.alert import AlertKind
from jobs.delivery.alert_rules import (
    Fact,
    HeldBy,
    Judgement,
    Keyless,
    Refusal,
    Trouble,
    Watched,
    judged,
    troubles,
)
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.store.alert_facts import AbandonedRun, Facts, FailingJob, HeldJobs
from jobs.store.alerts import Standing

FAILING = standing(AlertKind.JOB_FAILING, "digest", job="digest")
HELD = standing(AlertKind.JOB_HELD, "zai/main")
BILLING = standing(
    AlertKind.CREDENTIAL_BILLING, "zai:group:credential:main", provider="zai", credential="main"
)
DEAD = standing(AlertKind.CREDENTIAL_DEAD, "zai:credential:main", provider="zai", credential="main")
ENDING = standing(AlertKind.LOGIN_ENDING, "plan:house", provider="plan", credential="house")
KEYLESS = standing(AlertKind.PROVIDER_KEYLESS, "zai", provider="zai")
REFUSED = replace(standing(AlertKind.ATTRIBUTION_REFUSED, "7"), message="not earned")
NOTHING = Judgement()
T = TypeVar("T")


def judge(
    *facts: Fact | HeldJobs, open: Standing | None = None, by: Watched = WATCHED, now: datetime = NOW
) -> Judgement:
    """Judge facts of any kinds, with one alert open or none."""

    def of(kind: type[T]) -> tuple[T, ...]:
        return tuple(each for each in facts if isinstance(each, kind))

    known = Facts(
        failing=of(FailingJob),
        held=of(HeldJobs),
        closed=of(type(closed(ErrorClass.AUTH_DEAD))),
        logins=of(type(login())),
        abandoned=of(AbandonedRun),
        open=(open,) if open else (),
    )
    return judged(known, by, of(Keyless), now=now)


def opens(found: Judgement) -> list[str]:
    """Return the keys of what opens."""
    return [each.about.key for each in found.opens]


WRONG: list[tuple[Fact | HeldJobs, str]] = [
    (FailingJob("digest", 3), "job_failing:digest"),
    (HeldJobs("zai/main", 1, NOW + HOUR, "every target is closed"), "job_held:zai/main"),
    (closed(ErrorClass.AUTH_DEAD), "credential_dead:zai:credential:main"),
    (closed(ErrorClass.AUTH), "credential_dead:zai:credential:main"),
    (closed(ErrorClass.QUOTA_BILLING), "credential_billing:zai:group:credential:main"),
    (login(), "login_ending:plan:house"),
    (AbandonedRun(42, "digest", NOW, NOW), "run_abandoned:42"),
    (Keyless("zai", "no key for zai can be read: main: the variable is not set"), "provider_keyless:zai"),
]
LASTING = [(fact, key) for fact, key in WRONG if not key.startswith("run_")]


def stands(key: str, *, told: datetime = NOW) -> Standing:
    """Return the open alert of that key."""
    known = (FAILING, HELD, BILLING, DEAD, ENDING, KEYLESS)
    return replace(next(each for each in known if each.about.key == key), opened_at=told, told_at=told)


@pytest.mark.parametrize(("fact", "key"), WRONG, ids=lambda each: str(each)[:40])
def test_each_kind_of_trouble_opens_one_alert(fact: Fact, key: str) -> None:
    assert opens(judge(fact)) == [key]


@pytest.mark.parametrize(("fact", "key"), LASTING, ids=lambda each: str(each)[:40])
def test_what_was_told_is_reminded_of_when_its_time_has_come_and_not_before(fact: Fact, key: str) -> None:
    assert judge(fact, open=stands(key), now=NOW + DAY - MINUTE) == NOTHING
    reminded = judge(fact, open=stands(key), now=NOW + DAY).reminds
    assert [each.about.key for each, _ in reminded] == [key]


@pytest.mark.parametrize(("fact", "key"), LASTING, ids=lambda each: str(each)[:40])
def test_what_is_not_there_any_more_is_over(fact: Fact, key: str) -> None:
    assert judge(open=stands(key)) == Judgement(over=(stands(key),))


def test_a_refused_mark_that_was_written_down_is_told_and_neither_reminded_of_nor_over() -> None:
    """Of yesterday's nobody is told any more."""
    found = judge(open=REFUSED)
    (told,) = found.tells
    assert told == (REFUSED, Trouble(REFUSED.about, Refusal(7, "not earned"), opens=False, reminds=False))
    assert replace(found, tells=()) == NOTHING
    assert judge(open=REFUSED, by=watched(remind_every=MINUTE), now=NOW + HOUR) == found
    assert judge(open=REFUSED, now=NOW + DAY) == Judgement(close=(REFUSED,))


@pytest.mark.parametrize("failures", [1, 2])
def test_a_job_that_fails_less_often_than_the_policy_says_is_no_alert(failures: int) -> None:
    assert judge(FailingJob("digest", failures)) == NOTHING


@pytest.mark.parametrize("failures", [1, 2])
def test_a_job_that_fails_again_after_it_was_told_of_is_not_over_before_it_succeeds(failures: int) -> None:
    """The policy may have changed meanwhile; what was told of gets its recovery note, and no reminder."""
    assert judge(FailingJob("digest", failures), open=FAILING, now=NOW + 3 * DAY) == NOTHING


def test_a_job_that_its_failures_pause_is_told_of_when_that_happens() -> None:
    """It would never reach the policy's number."""
    assert opens(judge(FailingJob("careful", 2, paused=True))) == ["job_failing:careful"]
    open_ = standing(AlertKind.JOB_FAILING, "careful", job="careful")
    assert judge(FailingJob("careful", 2, paused=True), open=open_, now=NOW + DAY).reminds


def test_nobody_is_reminded_of_a_job_that_somebody_has_paused() -> None:
    assert judge(FailingJob("digest", 5, paused=True), open=FAILING, now=NOW + DAY) == NOTHING


def test_a_hold_is_over_only_when_something_has_answered() -> None:
    """Let go, asked again, held again with the same key: one alert. But what was let go for a day is over."""
    let_go = HeldJobs("zai/main", 0)
    assert judge(let_go) == NOTHING
    assert judge(let_go, open=HELD, now=NOW + DAY - MINUTE) == NOTHING
    assert judge(let_go, open=HELD, now=NOW + DAY) == Judgement(over=(HELD,))
    assert judge(HeldJobs("zai/main", 2, NOW + DAY), open=HELD) == NOTHING


def test_whichever_models_of_a_credential_are_closed_it_is_one_alert() -> None:
    found = judge(HeldJobs("zai/main (glm-5)", 1, NOW + HOUR), HeldJobs("zai/main", 2, NOW + 2 * HOUR, "why"))
    assert opens(found) == ["job_held:zai/main"]
    assert found.opens[0].fact == HeldBy(
        ("zai/main",), ("zai/main (glm-5)", "zai/main"), 3, NOW + 2 * HOUR, "why"
    )


def test_what_other_credentials_hold_now_as_well_has_not_recovered() -> None:
    """The new alert says it; a recovery note beside it would be no truth."""
    found = judge(HeldJobs("groq/main, zai/main", 1, NOW + HOUR), open=HELD)
    assert (opens(found), found.over, found.close) == (["job_held:groq/main, zai/main"], (), (HELD,))


def test_what_others_hold_is_no_reason_to_hide_a_recovery() -> None:
    assert judge(HeldJobs("groq/main", 1, NOW + HOUR), open=HELD).over == (HELD,)


def test_a_mark_for_money_that_has_lapsed_is_no_recovery() -> None:
    """A probe renews it, and that is not news either."""
    lapsed = closed(ErrorClass.QUOTA_BILLING, until=NOW - MINUTE)
    assert judge(lapsed, open=BILLING) == NOTHING
    renewed = closed(ErrorClass.QUOTA_BILLING, until=NOW + HOUR, made_at=NOW, attempt_id=9)
    assert judge(renewed, open=BILLING) == NOTHING


def test_a_mark_on_a_secret_that_was_replaced_is_over() -> None:
    assert judge(closed(ErrorClass.AUTH_DEAD, replaced=True), open=DEAD).over == (DEAD,)


def test_two_marks_that_say_the_same_of_a_credential_are_one_alert() -> None:
    assert len(judge(closed(ErrorClass.AUTH_DEAD), closed(ErrorClass.AUTH)).opens) == 1


def test_a_login_is_told_of_when_its_end_is_warned_of_and_until_it_is_renewed() -> None:
    """Seven days before, by the time that a warning in the log has; and after its end too."""
    assert judge(login(NOW + 7 * DAY + MINUTE)) == NOTHING
    assert opens(judge(login(NOW + 7 * DAY))) == ["login_ending:plan:house"]
    assert opens(judge(login(NOW - DAY))) == ["login_ending:plan:house"]
    assert judge(login(NOW + 30 * DAY), open=ENDING).over == (ENDING,)


def test_a_refresh_that_is_under_way_neither_opens_nor_ends_an_alert() -> None:
    """Its access token ends in a minute: that is why it is refreshed."""
    going = login(
        NOW + 60 * DAY,
        expires_at=NOW + MINUTE,
        spent_by=5,
        lease_owner="host 1 2 3",
        lease_until=NOW + MINUTE,
    )
    assert judge(going) == NOTHING
    assert judge(going, open=ENDING, now=NOW + MINUTE / 2) == NOTHING
    assert opens(judge(replace(going, lease_until=NOW - MINUTE))) == ["login_ending:plan:house"]


def test_nobody_is_reminded_of_a_login_while_it_is_refreshed() -> None:
    going = login(NOW + DAY, expires_at=NOW + DAY, spent_by=5, lease_until=NOW + DAY + MINUTE)
    assert judge(going, open=ENDING, now=NOW + DAY) == NOTHING
    reminded = judge(replace(going, lease_until=NOW + DAY), open=ENDING, now=NOW + DAY).reminds
    assert [each for each, _ in reminded] == [ENDING]


def test_a_refresh_under_way_does_not_end_the_alert_about_a_grant_that_ends() -> None:
    """While its refresh token is away only the access token's end is known, which is not near yet."""
    ends = NOW + 3 * DAY
    going = login(ends, issued_at=NOW - HOUR, expires_at=NOW + HOUR, spent_by=5, lease_until=NOW + MINUTE)
    assert judge(going, open=ENDING) == NOTHING


def test_nothing_is_told_of_what_the_configuration_does_not_have() -> None:
    gone = replace(WATCHED, jobs={}, credentials=())
    facts = [fact for fact, key in WRONG if not key.startswith("provider_")]
    assert judge(*facts, by=gone) == NOTHING


@pytest.mark.parametrize("open_", [FAILING, BILLING, DEAD, ENDING, KEYLESS], ids=lambda each: each.about.key)
def test_an_alert_about_what_the_configuration_has_no_more_is_closed_without_a_word(open_: Standing) -> None:
    gone = replace(WATCHED, jobs={}, credentials=())
    facts = [fact for fact, key in LASTING if not key.startswith("provider_")]
    assert judge(*facts, open=open_, by=gone) == Judgement(close=(open_,))


def test_a_group_is_watched_as_long_as_one_of_its_credentials_is() -> None:
    """The credential that earned the mark need not be there any more."""
    other = closed(ErrorClass.QUOTA_BILLING, quota_group="house", earned_by="gone")
    grouped = replace(WATCHED, credentials=(replace(WATCHED.credentials[0], group="house"),))
    assert opens(judge(other, by=grouped)) == ["credential_billing:zai:group:house"]
    assert opens(judge(other)) == []


def test_marks_of_several_scopes_are_several_alerts() -> None:
    one = closed(ErrorClass.QUOTA_BILLING)
    other = closed(ErrorClass.QUOTA_BILLING, scope=Scope.GROUP_MODEL, model="glm-5")
    assert len(judge(one, other).opens) == 2


@pytest.mark.parametrize(
    ("every", "after", "reminded"),
    [(DAY, DAY, True), (DAY, HOUR, False), (HOUR, HOUR, True), (MINUTE, 30 * DAY, True)],
)
def test_a_reload_may_change_how_often_is_reminded(
    every: timedelta, after: timedelta, reminded: bool
) -> None:
    found = judge(FailingJob("digest", 4), open=FAILING, by=watched(remind_every=every), now=NOW + after)
    assert bool(found.reminds) is reminded


def test_a_reload_may_change_how_many_failures_are_an_alert() -> None:
    assert opens(judge(FailingJob("digest", 4), by=watched(after_failures=5))) == []
    assert opens(judge(FailingJob("digest", 4), by=watched(after_failures=1))) == ["job_failing:digest"]


def test_a_clock_that_was_set_back_by_years_dates_an_alert_anew() -> None:
    """Else nobody would be reminded for years. A step of an hour only makes the reminder late by that."""
    future = stands("job_failing:digest", told=NOW + 3650 * DAY)
    assert judge(FailingJob("digest", 4), open=future) == Judgement(redate=(future,))
    soon = stands("job_failing:digest", told=NOW + HOUR)
    assert judge(FailingJob("digest", 4), open=soon) == NOTHING


def test_a_clock_that_jumps_ahead_reminds_once() -> None:
    found = judge(FailingJob("digest", 4), open=FAILING, now=NOW + 3650 * DAY)
    assert [each for each, _ in found.reminds] == [FAILING]


def test_troubles_are_the_same_whatever_was_told() -> None:
    """What is wrong is a matter of facts; what is told of them is another."""
    facts = Facts(failing=(FailingJob("digest", 3),), open=(FAILING,))
    assert [each.about.key for each in troubles(facts, WATCHED, now=NOW)] == ["job_failing:digest"]
