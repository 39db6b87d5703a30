"""What a token endpoint's answer grants, and what polling makes of one that grants nothing."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.workplace import jwt

from jobs.providers.answer import Answer, Origin, TransportFailure
from jobs.providers.device_login import LONGEST_BACKOFF, next_interval
from jobs.providers.token_grant import LoginFailed, granted
from jobs.secret import Redactor, Secret

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
LOST = Answer(None, failure=TransportFailure.TIMEOUT, origin=Origin.TOKEN, detail="no answer within 30 s")


def answer(document: Any, status: int = 200) -> Answer:
    """Return a token endpoint's answer."""
    return Answer(status, {}, json.dumps(document).encode(), origin=Origin.TOKEN)


def test_a_grant_is_read_with_its_ends() -> None:
    grant = granted(
        answer({"access_token": "a", "refresh_token": "r", "expires_in": 3600, "refresh_expires_in": 1800}),
        now=NOW,
    )
    assert grant is not None
    assert (grant.access, grant.refresh) == (Secret("a"), Secret("r"))
    assert grant.expires_at == NOW + timedelta(hours=1)
    assert grant.ends_at == NOW + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"refresh_token_expires_in": 15897600}, timedelta(days=184)),
        ({"refresh_token_expires_in": "15897600"}, timedelta(days=184)),
        ({"refresh_expires_in": 0}, None),
        ({"refresh_expires_in": -1}, None),
        ({"refresh_expires_in": True}, None),
        ({"refresh_expires_in": 1e300}, None),
        ({"refresh_expires_in": None}, None),
        ({}, None),
    ],
)
def test_the_end_of_a_grant_is_believed_where_it_means_something(
    fields: dict[str, Any], ends: timedelta | None
) -> None:
    """GitHub's field and Keycloak's; 0 is Keycloak's way to say that an offline token does not end."""
    grant = granted(answer({"access_token": "a", **fields}), now=NOW)
    assert grant is not None
    assert grant.ends_at == (NOW + ends if ends else None)


def test_a_token_that_says_itself_when_it_ends_is_believed_where_the_answer_does_not() -> None:
    ends = NOW + timedelta(minutes=10)
    grant = granted(answer({"access_token": jwt({"exp": ends.timestamp()})}), now=NOW)
    assert grant is not None
    assert grant.expires_at == ends


@pytest.mark.parametrize(
    "nothing",
    [
        answer({"access_token": "a"}, status=201),
        answer({"access_token": "line\nbreak"}),
        answer({"access_token": ""}),
        answer({"access_token": 7}),
        answer(["access_token"]),
        Answer(200, {}, b"[" * 100_000, origin=Origin.TOKEN),
        LOST,
    ],
)
def test_what_holds_no_usable_token_grants_nothing(nothing: Answer) -> None:
    assert granted(nothing, now=NOW) is None


def polled(reply: Answer, interval: float = 5.0) -> float:
    """Return the interval after an answer."""
    return next_interval(reply, interval, Redactor())


def test_polling_follows_section_3_5() -> None:
    assert polled(answer({"error": "authorization_pending"}, 400)) == 5
    assert polled(answer({"error": "authorization_pending"})) == 5, "GitHub says its errors with 200"
    assert polled(answer({"error": "slow_down"}, 400)) == 10
    assert polled(answer({"error": "slow_down"}, 429)) == 10
    assert polled(answer({"error": "slow_down", "interval": 30})) == 30
    assert polled(answer({"error": "slow_down", "interval": 6})) == 10


@pytest.mark.parametrize("reply", [LOST, answer({}, 503), answer({}, 429), Answer(408), answer({}, 500)])
def test_where_nobody_judged_the_interval_doubles_up_to_a_minute(reply: Answer) -> None:
    assert polled(reply) == 10
    assert polled(reply, 40) == LONGEST_BACKOFF
    assert polled(reply, 90) == 90, "never faster than the server asked for"


@given(
    status=st.one_of(st.none(), st.integers(100, 599)),
    body=st.one_of(st.binary(max_size=200), st.dictionaries(st.text(max_size=9), st.text(max_size=9)).map(
        lambda found: json.dumps(found).encode()
    )),
)  # fmt: skip
def test_any_answer_ends_polling_with_words_or_slows_it_down(status: int | None, body: bytes) -> None:
    reply = Answer(status, {}, body, origin=Origin.TOKEN)
    try:
        said: float | str = polled(reply)
    except LoginFailed as failed:
        said = str(failed)
    assert said.isprintable() if isinstance(said, str) else said >= 5
