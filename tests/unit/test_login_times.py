"""When logins are refreshed outside of runs, and when their end is warned of: pure functions of the row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.providers.login_times import due_at, ends_at, is_ending, is_stale, warns_at
from jobs.store.tokens import SealedTokens

ISSUED = datetime(2026, 9, 4, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def login(
    lifetime: timedelta | None = HOUR, *, login_id: str = "login-1", grant: timedelta | None = None
) -> SealedTokens:
    """Return a login that was granted at ISSUED."""
    return SealedTokens(
        provider="plan",
        label="house",
        login_id=login_id,
        generation=1,
        access_token=b"a",
        refresh_token=b"r",
        client_id="app",
        account_id=None,
        issued_at=ISSUED,
        expires_at=ISSUED + lifetime if lifetime else None,
        grant_ends_at=ISSUED + grant if grant else None,
    )


@given(
    seconds=st.integers(1, 10**7), login_id=st.text(min_size=1, max_size=16), generation=st.integers(0, 10**6)
)
def test_a_login_is_due_shortly_before_a_run_would_have_to_refresh_it(
    seconds: int, login_id: str, generation: int
) -> None:
    """Between one and one and a half times 5 min, or a tenth of a shorter life, before the end."""
    sealed = replace(login(timedelta(seconds=seconds), login_id=login_id), generation=generation)
    early = min(5 * MINUTE, timedelta(seconds=seconds) / 10)
    due, end = due_at(sealed), sealed.expires_at
    assert due is not None
    assert end is not None
    assert end - 1.5 * early <= due <= end - early + timedelta(microseconds=1)
    assert due_at(sealed) == due, "the same at every look"
    assert is_stale(sealed, now=end - early)
    assert not is_stale(sealed, now=end - early - timedelta(seconds=1))


def test_logins_of_the_same_age_are_due_at_moments_of_their_own() -> None:
    """Not all of a fleet's in one second."""
    moments = {due_at(login(login_id=f"login-{number}")) for number in range(100)}
    assert len(moments) == 100


def test_the_next_token_of_a_login_has_a_moment_of_its_own() -> None:
    sealed = login()
    assert due_at(replace(sealed, generation=2)) != due_at(sealed)


@pytest.mark.parametrize(
    "never",
    [login(None), replace(login(), refresh_token=None), replace(login(), spent_by=7)],
    ids=["no end", "no refresh token", "sent and not answered for"],
)
def test_what_cannot_or_need_not_be_refreshed_is_never_due(never: SealedTokens) -> None:
    assert due_at(never) is None


@pytest.mark.parametrize(
    ("grant", "before"),
    [(180 * DAY, 7 * DAY), (30 * DAY, 3 * DAY), (10 * HOUR, HOUR)],
    ids=["6 months", "30 d", "10 h"],
)
def test_an_end_is_warned_of_seven_days_before_or_a_tenth_of_its_life(
    grant: timedelta, before: timedelta
) -> None:
    sealed = login(grant=grant)
    assert warns_at(sealed) == ISSUED + grant - before
    assert not is_ending(sealed, now=ISSUED + grant - before - MINUTE)
    assert is_ending(sealed, now=ISSUED + grant - before)
    assert not is_ending(sealed, now=ISSUED + grant), "that is no warning any more"


def test_a_grant_whose_end_nobody_names_is_never_warned_of() -> None:
    sealed = login()
    assert (ends_at(sealed), warns_at(sealed), is_ending(sealed, now=ISSUED + 1000 * DAY)) == (
        None,
        None,
        False,
    )


@pytest.mark.parametrize("lacking", [{"refresh_token": None}, {"spent_by": 7}])
def test_a_login_that_cannot_be_refreshed_ends_with_its_access_token(lacking: dict[str, int | None]) -> None:
    assert ends_at(replace(login(10 * DAY, grant=90 * DAY), **lacking)) == ISSUED + 10 * DAY
