"""How marks are written: deadlines, ladders, successes and resets (hard rules 2 and 3)."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection
from support.ledger import DAY, HOUR, MINUTE, NOW, SECOND, key_of, send, target_of
from support.marks import earned, is_open, refuse

from jobs.attempt import Purpose
from jobs.errors import ErrorClass
from jobs.mark import Status
from jobs.providers.recovery import RECOVERY
from jobs.store import credentials

# Rule 2: deadlines and ladders.


def test_the_later_deadline_stays(db: Connection) -> None:
    """A shorter hint does not open what a longer one has closed."""
    refuse(db, ErrorClass.QUOTA_WINDOW, until=NOW + 5 * HOUR)

    mark = refuse(db, ErrorClass.QUOTA_WINDOW, started=NOW + MINUTE, until=NOW + HOUR)

    assert mark is not None
    assert mark.until == NOW + 5 * HOUR


def test_a_later_deadline_replaces_an_earlier_one(db: Connection) -> None:
    """With the attempt that stated it."""
    first = refuse(db, ErrorClass.QUOTA_WINDOW, until=NOW + HOUR)

    second = refuse(db, ErrorClass.QUOTA_WINDOW, started=NOW + MINUTE, until=NOW + 5 * HOUR)

    assert first is not None
    assert second is not None
    assert second.until == NOW + 5 * HOUR
    assert second.attempt_id > first.attempt_id


def test_a_ladder_climbs_with_each_failure_that_began_after_the_mark(db: Connection) -> None:
    """30 s, 1 min, 5 min, and 5 min from then on."""
    lengths, at = [], NOW
    for _ in range(4):
        mark = refuse(db, ErrorClass.RATE_LIMIT, started=at)
        assert mark is not None
        assert mark.until is not None
        lengths.append(mark.until - mark.made_at)
        at = mark.until + SECOND

    assert lengths == [30 * SECOND, MINUTE, 5 * MINUTE, 5 * MINUTE]


def test_a_probe_that_is_refused_renews_the_step_and_climbs_none(db: Connection) -> None:
    """It only looked whether it is still so: five probes do not close a balance for a day."""
    refuse(db, ErrorClass.QUOTA_BILLING)
    attempt = send(db, at=NOW + HOUR / 2)

    probed = replace(earned(ErrorClass.QUOTA_BILLING), climbs=False)
    mark = credentials.mark(db, attempt, probed, now=NOW + HOUR / 2 + SECOND)

    assert mark is not None
    assert (mark.step, mark.until) == (1, NOW + HOUR / 2 + SECOND + HOUR)


def test_a_default_time_never_shortens_what_the_provider_has_stated(db: Connection) -> None:
    """Where there is one credential only, and so a minute is the most that is guessed."""
    first, second = send(db, at=NOW), send(db, at=NOW)
    stated = earned(ErrorClass.RATE_LIMIT, until=NOW + 100 * SECOND)
    credentials.mark(db, first, stated, now=NOW + SECOND)

    default = replace(earned(ErrorClass.RATE_LIMIT), ladder=(5 * MINUTE,))
    credentials.mark(db, second, default, now=NOW + 2 * SECOND)

    assert not is_open(db, NOW + 99 * SECOND, only=True)
    assert is_open(db, NOW + 101 * SECOND, only=True)
    assert not is_open(db, NOW + 101 * SECOND)


def test_refusals_that_were_in_flight_together_are_one_step(db: Connection) -> None:
    """32 requests leave, the first refusal marks, and the others add nothing."""
    in_flight = [send(db, at=NOW + number * SECOND / 100) for number in range(32)]

    made = [
        credentials.mark(db, attempt, earned(ErrorClass.RATE_LIMIT), now=NOW + SECOND + number * SECOND / 100)
        for number, attempt in enumerate(in_flight)
    ]

    assert {mark.step for mark in made if mark} == {1}
    assert credentials.count_marks(db) == 1


def test_the_second_401_in_a_row_is_invalid_for_good(db: Connection) -> None:
    """No time ends it."""
    first = refuse(db, ErrorClass.AUTH)
    second = refuse(db, ErrorClass.AUTH, started=NOW + 6 * MINUTE)

    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (Status.EXHAUSTED, Status.INVALID)
    assert not is_open(db, NOW + 300 * DAY)


def test_a_success_clears_an_older_mark_and_resets_its_ladder(db: Connection) -> None:
    """The next failure is the first one again."""
    refuse(db, ErrorClass.AUTH)
    credentials.clear_by_success(db, send(db, at=NOW + 6 * MINUTE))

    mark = refuse(db, ErrorClass.AUTH, started=NOW + 7 * MINUTE)

    assert mark is not None
    assert mark.status is Status.EXHAUSTED


def test_a_success_of_a_request_that_began_before_the_mark_clears_nothing(db: Connection) -> None:
    """It says nothing of the time after."""
    slow = send(db, at=NOW)
    refuse(db, ErrorClass.RATE_LIMIT, started=NOW + SECOND)

    assert credentials.clear_by_success(db, slow) == 0
    assert not is_open(db, NOW + 3 * SECOND)


def test_a_success_clears_only_what_it_used(db: Connection) -> None:
    """Not another credential, not another model, not another provider."""
    refuse(db, ErrorClass.AUTH)
    refuse(db, ErrorClass.MODEL_NOT_FOUND)
    later = NOW + MINUTE

    for other in (
        send(db, key_of("other"), at=later),
        send(db, key_of(provider="openai"), target_of(provider="openai"), at=later),
    ):
        assert credentials.clear_by_success(db, other) == 0
    assert credentials.clear_by_success(db, send(db, target=target_of("another"), at=later)) == 1

    assert [mark.error_class for mark in credentials.all_marks(db)] == [ErrorClass.MODEL_NOT_FOUND]


def test_a_success_does_not_raise_the_dead(db: Connection) -> None:
    """A request that slipped through proves nothing about a revoked login."""
    refuse(db, ErrorClass.AUTH_DEAD)

    assert credentials.clear_by_success(db, send(db, at=NOW + MINUTE)) == 0
    assert not is_open(db, NOW + MINUTE)


def test_a_refresh_that_worked_disproves_only_that_refreshing_failed(db: Connection) -> None:
    """Otherwise a login that is refused after each refresh would never be found invalid."""
    refuse(db, ErrorClass.AUTH)
    refuse(db, ErrorClass.AUTH_UNAVAILABLE)

    credentials.clear_by_success(db, send(db, at=NOW + 6 * MINUTE, purpose=Purpose.REFRESH))

    assert [mark.error_class for mark in credentials.all_marks(db)] == [ErrorClass.AUTH]


def test_a_day_without_a_failure_resets_a_ladder(db: Connection) -> None:
    """The day begins as the mark's own time has passed."""
    refuse(db, ErrorClass.RATE_LIMIT)

    within = refuse(db, ErrorClass.RATE_LIMIT, started=NOW + DAY)
    after = refuse(db, ErrorClass.RATE_LIMIT, started=NOW + 2 * DAY + 2 * MINUTE)

    assert within is not None
    assert after is not None
    assert (within.step, after.step) == (2, 1)


def test_billing_stays_on_its_last_rung_while_nobody_pays(db: Connection) -> None:
    """1, 2, 4, 8, 16, and 24 hours from then on: a closed day is no day without a failure."""
    lengths, at = [], NOW
    for _ in range(8):
        mark = refuse(db, ErrorClass.QUOTA_BILLING, started=at)
        assert mark is not None
        assert mark.until is not None
        lengths.append((mark.until - mark.made_at) / HOUR)
        at = mark.until + MINUTE

    assert lengths == [1, 2, 4, 8, 16, 24, 24, 24]


# Rule 3: an operator's reset beats everything before it.


@pytest.mark.parametrize("error_class", [c for c, row in RECOVERY.items() if row.scope is not None])
def test_an_attempt_that_began_before_a_reset_writes_no_mark(db: Connection, error_class: ErrorClass) -> None:
    """Whatever its scope."""
    in_flight = send(db, at=NOW)
    credentials.reset(db, [("zai", "key")], now=NOW + SECOND)

    assert credentials.mark(db, in_flight, earned(error_class), now=NOW + 2 * SECOND) is None
    assert credentials.count_marks(db) == 0


def test_a_reset_holds_for_what_others_close_on_the_same_group(db: Connection) -> None:
    """It lifted the group's mark: a request of another member, from before, does not bring it back."""
    send(db, key_of(group="team"))
    in_flight = send(db, key_of("other", group="team"))
    credentials.reset(db, [("zai", "key")], now=NOW + SECOND)

    assert credentials.mark(db, in_flight, earned(ErrorClass.QUOTA_BILLING), now=NOW + MINUTE) is None


def test_a_reset_of_one_credential_leaves_another_ones_refusals_alone(db: Connection) -> None:
    """They were not reset."""
    in_flight = send(db, key_of("other"))
    send(db)
    credentials.reset(db, [("zai", "key")], now=NOW + SECOND)

    assert credentials.mark(db, in_flight, earned(ErrorClass.AUTH), now=NOW + MINUTE) is not None


def test_an_attempt_that_began_after_a_reset_marks_again(db: Connection) -> None:
    """On the first rung: what stood there is gone."""
    refuse(db, ErrorClass.AUTH)
    credentials.reset(db, [("zai", "key")], now=NOW + MINUTE)
    assert is_open(db, NOW + MINUTE)

    mark = refuse(db, ErrorClass.AUTH, started=NOW + 2 * MINUTE)

    assert mark is not None
    assert mark.step == 1


def test_a_reset_lifts_the_dead_and_counts_what_it_lifted(db: Connection) -> None:
    """On the credential, its group and its endpoint."""
    for error_class in (ErrorClass.AUTH_DEAD, ErrorClass.QUOTA_BILLING, ErrorClass.OVERLOADED):
        refuse(db, error_class)

    assert credentials.reset(db, [("zai", "key"), ("zai", "nobody")], now=NOW + MINUTE) == 3
    assert is_open(db, NOW + MINUTE)
