"""What people read in a notice: what is wrong, and the command that mends it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from support.alerting import LOGIN, WATCHED, closed, login, standing
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND, key_of

from jobs.alert import AlertKind, Notice
from jobs.credential import Credential, CredentialKind, SecretReference
from jobs.delivery.alert_rules import Fact, HeldBy, Keyless, Refusal, Trouble, Watched
from jobs.delivery.alert_words import MOST_APART, Details, gathered, length, opened, reminder, resolved
from jobs.errors import ErrorClass
from jobs.names import ProviderName
from jobs.run import Reason, RunState
from jobs.store.alert_facts import AbandonedRun, EndedRun, FailingJob
from jobs.store.alerts import About, Change, Told

FAILED = EndedRun(42, NOW, NOW, RunState.FAILED, "auth", "the provider refuses the key", "zai", "glm-5")
SUCCEEDED = replace(FAILED, id=45, state=RunState.SUCCEEDED, reason=None, message=None)
DETAILS = Details(NOW + 2 * DAY, {"digest": FAILED}, {"zai/main": ("digest", "report")})


def told(fact: Fact, details: Details = DETAILS, by: Watched = WATCHED) -> Change:
    """Return the words with which a fact is told of."""
    return opened(Trouble(About(AlertKind.JOB_FAILING, "key"), fact), details, by)


@pytest.mark.parametrize(
    ("fact", "subject", "commands"),
    [
        (
            FailingJob("digest", 3),
            "digest fails: 3 failed runs in a row",
            ["promptd run show 42", "promptd explain digest"],
        ),
        (
            FailingJob("digest", 1, paused=True),
            "digest fails: 1 failed run",
            ["promptd job resume digest"],
        ),
        (
            HeldBy(("zai/main",), ("zai/main",), 2, NOW + HOUR, "every target is closed"),
            "2 jobs are held: zai/main is closed",
            ["promptd auth why zai main", "promptd auth reset zai main"],
        ),
        (
            closed(ErrorClass.QUOTA_BILLING),
            "zai/main is closed for money (quota_billing, 1113)",
            ["promptd auth reset zai main", "promptd auth why zai main"],
        ),
        (
            closed(ErrorClass.AUTH_DEAD),
            "zai/main is refused for good (auth_dead, account_deactivated)",
            ["promptd auth reset zai main", "promptd auth why zai main"],
        ),
        (
            closed(ErrorClass.AUTH_DEAD, provider="plan", earned_by="house", credential="house"),
            "plan/house is refused for good (auth_dead, account_deactivated)",
            ["promptd auth login plan house"],
        ),
        (
            login(NOW + 3 * DAY),
            "the login plan/house ends at 2026-09-07 08:00 UTC",
            ["promptd auth login plan house"],
        ),
        (
            AbandonedRun(42, "digest", NOW, NOW + MINUTE),
            "digest: run 42 was abandoned",
            ["promptd run show 42", "promptd run retry 42"],
        ),
        (
            Keyless("zai", "no key for zai can be read: main: it is empty"),
            "no key for zai can be read",
            ["promptd check"],
        ),
        (Refusal(7, "attempt 7 did not earn it"), "a mark was refused: attempt 7 had not earned it", []),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_notice_says_what_is_wrong_and_which_command_mends_it(
    fact: Fact, subject: str, commands: list[str]
) -> None:
    change = told(fact)
    assert change.subject == subject
    assert [each for each in commands if f"`{each}`" not in change.body] == []


def test_times_are_told_in_utc_and_in_the_zone_of_the_configuration() -> None:
    assert (
        "due 2026-09-04 08:00:00 UTC (2026-09-04 10:00:00 Europe/Berlin)"
        in told(FailingJob("digest", 3)).body
    )


def test_a_failing_job_is_told_with_its_newest_failure_and_whom_it_asks() -> None:
    body = told(FailingJob("digest", 3)).body
    assert "failed (auth): the provider refuses the key" in body
    assert "zai/glm-5" in body


@pytest.mark.parametrize("reason", [Reason.CONDITION, Reason.GATHER, Reason.TEMPLATE])
def test_a_job_that_fails_before_anybody_is_asked_is_told_without_whom_it_asks(reason: Reason) -> None:
    newest = replace(FAILED, reason=reason.value, message="the command ended with 1")
    body = told(FailingJob("digest", 3), Details(NOW, {"digest": newest})).body
    assert f"failed ({reason}): the command ended with 1" in body
    assert "promptd run show 42" in body
    assert "zai" not in body
    assert "promptd explain" not in body


def test_a_long_error_is_cut_to_one_line() -> None:
    long = replace(FAILED, message="no\n" * 1_000)
    body = told(FailingJob("digest", 3), Details(NOW, {"digest": long})).body
    assert max(len(line) for line in body.splitlines()) < 700


def test_a_dead_key_is_told_with_the_place_where_another_one_goes() -> None:
    """The reference, never the secret."""
    key = Credential(
        ProviderName("zai"), "main", CredentialKind.KEY, reference=SecretReference("env", "ZAI_KEY")
    )
    body = told(closed(ErrorClass.AUTH_DEAD), by=replace(WATCHED, credentials=(key,))).body
    assert "Put another key into env:ZAI_KEY" in body


def test_a_group_that_is_closed_is_told_with_everybody_in_it() -> None:
    both = (key_of("main", group="house"), key_of("spare", group="house"))
    body = told(
        closed(ErrorClass.QUOTA_BILLING, quota_group="house"), by=replace(WATCHED, credentials=both)
    ).body
    assert "in the group house: main, spare" in body


def test_a_login_that_has_ended_is_told_of_as_that() -> None:
    assert told(login(NOW + DAY)).subject == "the login plan/house ended at 2026-09-05 08:00 UTC"


def test_the_tools_own_login_is_told_with_the_command_that_takes_it_over() -> None:
    codex = replace(LOGIN, provider=ProviderName("openai-codex"))
    by = replace(WATCHED, credentials=(codex,))
    assert "`promptd auth import codex`" in told(login(NOW, provider="openai-codex"), by=by).body


def test_a_reminder_says_since_when() -> None:
    open_ = standing(AlertKind.JOB_FAILING, "digest", job="digest")
    trouble = Trouble(open_.about, FailingJob("digest", 9))
    change = reminder(open_, trouble, DETAILS, WATCHED)
    assert change.notice is Notice.REMINDER
    assert change.subject == "Still: digest fails: 9 failed runs in a row"
    assert "2026-09-04 08:00:00 UTC (2026-09-04 10:00:00 Europe/Berlin), 2 d ago" in change.body


@pytest.mark.parametrize(
    ("newest", "subject"),
    [
        (SUCCEEDED, "digest succeeds again"),
        (FAILED, "digest was resumed"),
        (None, "digest is no longer failing"),
    ],
)
def test_a_recovery_note_says_whether_a_job_has_succeeded_or_was_resumed(
    newest: EndedRun | None, subject: str
) -> None:
    """To resume a job forgets its failures: it has proved nothing."""
    open_ = standing(AlertKind.JOB_FAILING, "digest", job="digest")
    change = resolved(open_, Details(NOW, {"digest": newest} if newest else {}), WATCHED)
    assert (change.notice, change.subject) == (Notice.RESOLVED, subject)


@pytest.mark.parametrize("kind", [each for each in AlertKind if each.lasts])
def test_whatever_lasts_has_words_for_its_end(kind: AlertKind) -> None:
    open_ = standing(kind, "zai/main", job="digest", provider="zai", credential="main")
    change = resolved(open_, DETAILS, WATCHED)
    assert change.subject
    assert "It was told of first at" in change.body


def fails(number: int) -> list[Told]:
    """Return notices about so many failing jobs."""
    changes = (told(FailingJob(f"job-{each}", 3), Details(NOW)) for each in range(number))
    return [Told(each, change) for each, change in enumerate(changes)]


def test_a_few_notices_of_one_kind_are_told_apart() -> None:
    assert gathered(fails(MOST_APART)) == fails(MOST_APART)


def test_many_notices_of_one_kind_are_one_message_of_bounded_length() -> None:
    (one,) = gathered(fails(10_000))
    assert one.change.subject == "job-0 fails: 3 failed runs in a row, and 9999 more like it"
    assert "job-19 fails" in one.change.body
    assert "… and 9980 more" in one.change.body
    assert len(one.change.body) < 2_000


def test_notices_of_other_kinds_stay_apart_from_many_of_one() -> None:
    other = Told(99, Change(Notice.RESOLVED, About(AlertKind.JOB_FAILING, "key"), "over", "over"))
    assert other in gathered([*fails(9), other])


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (30 * SECOND, "30 s"),
        (90 * SECOND, "1 min"),
        (26 * HOUR + MINUTE, "1 d 2 h"),
        (2 * DAY + MINUTE, "2 d 1 min"),
        (-HOUR, "0 s"),
    ],
)
def test_lengths_have_two_units_at_most(span: timedelta, words: str) -> None:
    assert length(span) == words
