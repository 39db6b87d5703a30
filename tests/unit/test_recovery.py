"""The table "Classes" of the specification, as a test: what follows each failure, and what it marks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from jobs.attempt import Step
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.providers.recovery import RECOVERY, Onward, Situation, Visit, goes_on, next_at_target

NONE = frozenset[ErrorClass]()
ROOM = Situation(label="key", quota_group="credential:key", left=timedelta(minutes=5), requests_left=12)
LOGIN = replace(ROOM, can_refresh=True)
K, KM, G, GM, E, EM = (
    Scope.CREDENTIAL,
    Scope.CREDENTIAL_MODEL,
    Scope.GROUP,
    Scope.GROUP_MODEL,
    Scope.ENDPOINT,
    Scope.ENDPOINT_MODEL,
)
MARKS: dict[str, tuple[Scope | None, list[float]]] = {  # scope, default times in seconds
    "config_error": (None, []),
    "auth": (K, [300]),
    "auth_dead": (K, [3600]),
    "auth_unavailable": (K, [60]),
    "permission": (KM, [300]),
    "rate_limit": (GM, [30, 60, 300]),
    "rate_limit_upstream": (EM, [30, 60, 300]),
    "quota_window": (G, [3600]),
    "quota_billing": (G, [3600 * hours for hours in (1, 2, 4, 8, 16, 24)]),
    "overloaded": (EM, [15, 60]),
    "server_error": (E, [15, 60]),
    "timeout": (E, [15, 60]),
    "connection": (E, [15, 60]),
    "invalid_response": (E, [15, 60]),
    "context_overflow": (None, []),
    "payload_too_large": (None, []),
    "content_filter": (None, []),
    "model_not_found": (KM, [3600]),
    "entitlement": (KM, [86400]),
    "policy_blocked": (None, []),
    "bad_request": (None, []),
    "unknown": (KM, [30]),
}
ROTATE, LEAVE, RETRY = "next_credential", "next_target", "retry"
STEPS = {  # what one credential that is a key goes through, on and on the same failure
    "config_error": [LEAVE],
    "auth": [ROTATE],
    "auth_dead": [ROTATE],
    "auth_unavailable": [ROTATE],
    "permission": [ROTATE],
    "rate_limit": [ROTATE],
    "rate_limit_upstream": [LEAVE],
    "quota_window": [ROTATE],
    "quota_billing": [ROTATE],
    "overloaded": [RETRY, RETRY, LEAVE],
    "server_error": [RETRY, RETRY, LEAVE],
    "timeout": [LEAVE],
    "connection": [RETRY, LEAVE],
    "invalid_response": [RETRY, LEAVE],
    "context_overflow": [LEAVE],
    "payload_too_large": [LEAVE],
    "content_filter": [LEAVE],
    "model_not_found": [LEAVE],
    "entitlement": [LEAVE],
    "policy_blocked": [LEAVE],
    "bad_request": [LEAVE],
    "unknown": [RETRY, LEAVE],
}
ONWARD = {
    "config_error": Onward.IF_JOB_ALLOWS,
    "context_overflow": Onward.LARGER_CONTEXT,
    "payload_too_large": Onward.LARGER_CONTEXT,
    "content_filter": Onward.IF_JOB_ALLOWS,
    "bad_request": Onward.OTHER_PROVIDER,
}


def steps_of(error_class: str, situation: Situation = ROOM) -> list[str]:
    """Return what is done about the same failure again and again, until the credential is left."""
    visit, steps = Visit(), list[str]()
    while not steps or steps[-1] not in (ROTATE, LEAVE):
        steps.append(next_at_target(ErrorClass(error_class), visit, situation, jitter=0.5).step)
    return steps


@pytest.mark.parametrize("table", [RECOVERY, MARKS, STEPS])
def test_every_class_has_its_row(table: dict[str, object]) -> None:
    """In the product's table, and in both of this test."""
    assert set(table) == set(ErrorClass)


@pytest.mark.parametrize("error_class", MARKS)
def test_each_class_marks_what_the_specification_says_for_that_long(error_class: str) -> None:
    """A dash in the table is no mark."""
    row = RECOVERY[ErrorClass(error_class)]

    assert (row.scope, [length.total_seconds() for length in row.ladder]) == MARKS[error_class]


@pytest.mark.parametrize("error_class", STEPS)
def test_each_class_is_retried_rotated_or_left_as_the_specification_says(error_class: str) -> None:
    """For a key, without a hint."""
    assert steps_of(error_class) == STEPS[error_class]


@pytest.mark.parametrize("error_class", STEPS)
def test_a_login_is_refreshed_once_for_a_refusal_and_for_nothing_else(error_class: str) -> None:
    """Even where the words claim a death (hard rule 11)."""
    refresh = ["refresh"] if error_class in ("auth", "auth_dead") else []

    assert steps_of(error_class, LOGIN) == refresh + STEPS[error_class]


def test_two_kinds_of_refusal_are_one_refresh() -> None:
    """Per login and target."""
    visit = Visit()

    first = next_at_target(ErrorClass.AUTH_DEAD, visit, LOGIN, jitter=0)
    second = next_at_target(ErrorClass.AUTH, visit, LOGIN, jitter=0)
    other = next_at_target(ErrorClass.AUTH, visit, replace(LOGIN, label="another"), jitter=0)

    assert [each.step for each in (first, second, other)] == [
        Step.REFRESH,
        Step.NEXT_CREDENTIAL,
        Step.REFRESH,
    ]


@pytest.mark.parametrize("error_class", STEPS)
def test_without_a_request_left_nothing_is_tried_again(error_class: str) -> None:
    """The budget bounds every class."""
    assert steps_of(error_class, replace(LOGIN, requests_left=0)) == [LEAVE]


@pytest.mark.parametrize(
    ("error_class", "delays"), [("server_error", (0.5, 1)), ("overloaded", (0.5, 1)), ("connection", (0.5,))]
)
def test_backoff_doubles_and_is_spread_over_its_upper_half(
    error_class: str, delays: tuple[float, ...]
) -> None:
    """From half of each delay to all of it."""
    for jitter, share in ((0.0, 0.5), (1.0, 1.0)):
        visit = Visit()
        granted = [next_at_target(ErrorClass(error_class), visit, ROOM, jitter=jitter) for _ in delays]
        assert [each.delay.total_seconds() for each in granted] == [delay * share for delay in delays]
        assert {each.reason for each in granted} == {"backoff"}


def test_backoff_that_does_not_fit_the_deadline_is_not_begun() -> None:
    """The next target gets the time."""
    assert steps_of("server_error", replace(ROOM, left=timedelta(seconds=0.3))) == [LEAVE]


def test_a_hint_lengthens_a_backoff() -> None:
    """A short one."""
    hinted = replace(ROOM, hint=timedelta(seconds=4))

    assert next_at_target(ErrorClass.OVERLOADED, Visit(), hinted, jitter=0).delay == timedelta(seconds=4)


@pytest.mark.parametrize(
    ("hint", "left", "steps"),
    [
        (10.0, 60, [RETRY, ROTATE]),
        (0.2, 60, [RETRY, ROTATE]),
        (10.1, 60, [ROTATE]),
        (5.0, 5, [ROTATE]),
        (None, 60, [ROTATE]),
    ],
)
def test_a_rate_limit_is_waited_for_once_where_its_hint_is_short_and_fits(
    hint: float | None, left: float, steps: list[str]
) -> None:
    """At most ten seconds, within the deadline."""
    said = timedelta(seconds=hint) if hint else None

    assert steps_of("rate_limit", replace(ROOM, hint=said, left=timedelta(seconds=left))) == steps


def test_a_lost_request_is_repeated_only_for_a_job_that_says_so() -> None:
    """`repeat_safe: true`; it may have been paid."""
    assert steps_of("timeout", replace(ROOM, repeat_safe=True)) == [RETRY, LEAVE]


def test_a_certificate_that_does_not_verify_is_not_asked_twice() -> None:
    """No second request mends it."""
    assert steps_of("connection", replace(ROOM, verifiable=False)) == [LEAVE]


def test_each_class_has_a_budget_of_its_own_at_a_target() -> None:
    """Two kinds of trouble are not one."""
    visit = Visit()
    steps = [
        next_at_target(error_class, visit, ROOM, jitter=0).step
        for error_class in (ErrorClass.UNKNOWN, ErrorClass.INVALID_RESPONSE, ErrorClass.UNKNOWN)
    ]

    assert steps == [Step.RETRY, Step.RETRY, Step.NEXT_TARGET]


def test_a_credential_that_is_left_is_remembered_as_refused() -> None:
    """One that is retried is not."""
    visit = Visit()
    next_at_target(ErrorClass.SERVER_ERROR, visit, ROOM, jitter=0)
    assert visit.refused == set()

    next_at_target(ErrorClass.AUTH, visit, ROOM, jitter=0)
    assert visit.refused == {"key"}


@pytest.mark.parametrize("error_class", ErrorClass)
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("other_provider", [True, False])
def test_the_chain_goes_on_for_every_class_but_five(
    error_class: ErrorClass, allowed: bool, other_provider: bool
) -> None:
    """Those are the job's to fix, or to allow."""
    expected = (
        allowed
        or {
            Onward.ALWAYS: True,
            Onward.OTHER_PROVIDER: other_provider,
            Onward.IF_JOB_ALLOWS: False,
            Onward.LARGER_CONTEXT: False,
        }[ONWARD.get(error_class, Onward.ALWAYS)]
    )

    on = frozenset({error_class}) if allowed else NONE

    assert goes_on(error_class, allowed=on, other_provider=other_provider, larger_context=False) is expected


def test_stated_times_are_believed_for_limits_and_windows_only() -> None:
    """Money can come at any time: a stated reset does not close it for longer (S: quota_billing)."""
    believed = {error_class for error_class, row in RECOVERY.items() if row.believes_hint}

    assert believed == {"rate_limit", "rate_limit_upstream", "quota_window"}


def test_failures_of_an_endpoint_are_counted_before_they_mark() -> None:
    """Three in a row."""
    counted = {error_class for error_class, row in RECOVERY.items() if row.marks_after == 3}

    assert counted == {"server_error", "timeout", "connection", "invalid_response"}
