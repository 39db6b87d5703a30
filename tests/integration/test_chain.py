"""The chain against providers on loopback: what is tried, in which order, and what is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from support.hang_guard import wait_ends
from support.house import House, keyed, logged_in, open_house
from support.ledger import HOUR, SECOND, url_of

from jobs import clock
from jobs.errors import ErrorClass
from jobs.events import CredentialMarked, Event, FellBack, TargetPassedOver
from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.request import Request
from jobs.store.engine import open_engine
from jobs.store.tables import marks as mark_table

pytestmark = pytest.mark.anyio
GOOD = Reply.text("fine")
REFUSED = Reply.error(401, code="invalid_api_key")


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider."""
    async with Loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house with a provider of two keys, one of a single key, and one with a login."""
    providers = {
        "pair": keyed(server.base_url, "FIRST", "SECOND"),
        "team": keyed(server.base_url, "MATE", "OTHER", group="team"),
        "backup": keyed(f"{server.origin}/backup/v1", "BACKUP"),
        "login": logged_in(server.base_url, server.token_url),
        "nobody": keyed(server.base_url, "NOBODY"),
    }
    keys = ("FIRST", "SECOND", "MATE", "OTHER", "BACKUP")
    async with open_house(tmp_path, providers, environ={key: f"key-{key}" for key in keys}) as house:
        yield house


def keys_of(server: Loopback) -> list[str]:
    """Return the keys of the requests to models, in order, without what they all begin with."""
    return [str(one.key).removeprefix("key-") for one in server.received(Endpoint.CHAT)]


async def steps(house: House) -> list[tuple[str | None, str, str | None, str | None]]:
    """Return credential, outcome, class and what was done next, of every attempt."""
    rows = await house.attempts()
    return [(row.credential, row.outcome, row.error_class, row.recovery) for row in rows]


async def test_the_first_target_answers(house: House, server: Loopback) -> None:
    """One request, one row, no fallback."""
    answered = await house.complete(house.target("pair"), house.target("backup"))

    assert answered.completion.text == "You said: What is new?"
    assert answered.fallback_reason is None
    assert await steps(house) == [("FIRST", "succeeded", None, None)]
    assert keys_of(server) == ["FIRST"]


async def test_a_refused_key_gives_way_to_the_next_one_and_is_marked(house: House, server: Loopback) -> None:
    """Rotating keys within a target is no fallback."""
    server.script(Endpoint.CHAT, REFUSED, key="key-FIRST")

    answered = await house.complete(house.target("pair"), house.target("backup"))

    assert answered.fallback_reason is None
    assert await steps(house) == [
        ("FIRST", "failed", "auth", "next_credential"),
        ("SECOND", "succeeded", None, None),
    ]
    assert [(mark.provider, mark.credential) for mark in await house.marks()] == [("pair", "FIRST")]


async def test_when_every_key_is_refused_the_next_target_answers(house: House, server: Loopback) -> None:
    """The reason is the class for which the first target was left."""
    for key in ("FIRST", "SECOND"):
        server.script(Endpoint.CHAT, REFUSED, key=f"key-{key}")

    answered = await house.complete(house.target("pair"), house.target("backup"))

    assert answered.fallback_reason is ErrorClass.AUTH
    assert answered.attempt.target_index == 1
    assert [row[3] for row in await steps(house)] == ["next_credential", "next_target", None]
    assert FellBack(None, "pair", "backup", ErrorClass.AUTH) in house.events


async def test_closed_credentials_are_passed_over_without_a_request(house: House, server: Loopback) -> None:
    """The row says why, in words, with the mark's class and code."""
    server.script(Endpoint.CHAT, Reply.error(402, code="no_money"), key="key-FIRST")
    server.script(Endpoint.CHAT, Reply.error(402, code="no_money"), key="key-SECOND")
    await house.complete(house.target("pair"), house.target("backup"))

    answered = await house.complete(house.target("pair"), house.target("backup"))

    passed, sent = (await house.attempts())[-2:]
    assert answered.fallback_reason is ErrorClass.QUOTA_BILLING
    assert (passed.outcome, passed.error_class, passed.code) == ("passed_over", "quota_billing", "no_money")
    assert "FIRST is exhausted: quota_billing no_money, attempt 1, closed until" in passed.message
    assert (passed.credential, passed.recovery) == (None, "next_target")
    assert sent.outcome == "succeeded"
    assert keys_of(server) == ["FIRST", "SECOND", "BACKUP", "BACKUP"]
    assert any(isinstance(event, TargetPassedOver) for event in house.events)


async def test_a_group_shares_its_rate_limit(house: House, server: Loopback) -> None:
    """No member of it is asked; the next target is."""
    server.script(Endpoint.CHAT, Reply.error(429), key="key-MATE")

    await house.complete(house.target("team"), house.target("backup"))

    assert keys_of(server) == ["MATE", "BACKUP"]


async def test_a_short_hint_is_waited_for_and_written_down(house: House, server: Loopback) -> None:
    """`waited` and `wait_reason` stand on the attempt after the wait."""
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "2"}), GOOD)

    await house.complete(house.target("backup"))

    first, second = await house.attempts()
    assert (first.recovery, first.waited) == ("retry", 0)
    assert 0 < first.retry_after <= 2
    assert 0 < second.waited <= 2
    assert second.wait_reason == "the provider asked to wait"
    assert await house.marks() == []


async def test_a_long_hint_is_not_waited_for(house: House, server: Loopback) -> None:
    """The key is closed until then, and the next one asked."""
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "600"}), key="key-FIRST")

    await house.complete(house.target("pair"))

    (mark,) = await house.marks()
    assert (mark.quota_group, mark.model, mark.until_source) == ("credential:FIRST", "m", "retry-after")
    assert keys_of(server) == ["FIRST", "SECOND"]


async def test_a_busy_server_is_asked_twice_more_with_the_same_key(house: House, server: Loopback) -> None:
    """Backoff, no rotation; then the next target."""
    server.script(Endpoint.CHAT, Reply.error(503), key="key-FIRST")

    await house.complete(house.target("pair"), house.target("backup"))

    rows = await house.attempts()
    assert [row.credential for row in rows] == ["FIRST", "FIRST", "FIRST", "BACKUP"]
    assert [row.recovery for row in rows] == ["retry", "retry", "next_target", None]
    assert [row.wait_reason for row in rows] == [None, "backoff", "backoff", None]
    assert 0.25 <= rows[1].waited <= 0.5 <= rows[2].waited <= 1
    assert [(mark.scope, mark.base_url) for mark in await house.marks()] == [
        ("endpoint_model", server.base_url)
    ]


@pytest.mark.parametrize("repeat_safe", [True, False])
async def test_a_timeout_is_repeated_only_where_the_job_says_it_is_safe(
    tmp_path: Path, server: Loopback, repeat_safe: bool
) -> None:
    """The lost request may have been paid."""
    server.script(Endpoint.CHAT, GOOD.silent(), key="secret-of-SLOW")
    providers = {"slow": keyed(server.base_url, "SLOW", timeout="1s"), "backup": keyed(server.base_url, "B")}
    async with open_house(tmp_path, providers) as house:
        answered = await house.complete(house.target("slow"), house.target("backup"), repeat_safe=repeat_safe)

        assert answered.fallback_reason is ErrorClass.TIMEOUT
        classes = [row.error_class for row in await house.attempts()]
    assert classes == ["timeout"] * (1 + repeat_safe) + [None]


async def test_three_failures_of_an_endpoint_in_a_row_close_it(house: House, server: Loopback) -> None:
    """Not the key: nobody asks it for a while, whatever the model."""
    server.script(Endpoint.CHAT, Reply.error(500), key="key-BACKUP")
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("backup"))

    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("backup", "another model"))

    assert exhausted.value.error_class is ErrorClass.SERVER_ERROR
    assert [row.outcome for row in await house.attempts()] == ["failed"] * 3 + ["passed_over"]
    assert [mark.scope for mark in await house.marks()] == ["endpoint"]


async def test_a_request_that_is_wrong_goes_to_another_provider_only(house: House, server: Loopback) -> None:
    """The same provider would say the same."""
    server.script(Endpoint.CHAT, Reply.error(400, message="bad"), key="key-FIRST")

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("pair"), house.target("pair", "other"), house.target("backup"))
    await house.complete(house.target("pair"), house.target("backup"))

    assert keys_of(server) == ["FIRST", "FIRST", "BACKUP"]


async def test_a_long_prompt_is_no_reason_to_fall_back(house: House, server: Loopback) -> None:
    """It is the job's to shorten."""
    server.script(Endpoint.CHAT, Reply.error(400, code="context_length_exceeded"), key="key-FIRST")

    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("pair"), house.target("backup"))

    assert exhausted.value.error_class is ErrorClass.CONTEXT_OVERFLOW
    assert await steps(house) == [("FIRST", "failed", "context_overflow", "stop")]


async def test_what_is_too_long_goes_to_a_larger_context_only(house: House, server: Loopback) -> None:
    """Those in between are passed over, and say why."""
    server.script(Endpoint.CHAT, Reply.error(400, code="context_length_exceeded"), key="key-FIRST")
    larger = replace(house.target("backup", "wide"), larger_context=True)

    answered = await house.complete(house.target("pair"), house.target("team"), larger)

    assert (answered.attempt.target.model, answered.fallback_reason) == ("wide", "context_overflow")
    assert await steps(house) == [
        ("FIRST", "failed", "context_overflow", "next_target"),
        (None, "passed_over", "context_overflow", "next_target"),
        ("BACKUP", "succeeded", None, None),
    ]


async def test_a_request_is_made_smaller_once_for_the_same_key(house: House, server: Loopback) -> None:
    """What it became goes along to whoever is asked next."""
    too_long = Reply.error(413)
    server.script(Endpoint.CHAT, too_long, Reply.error(500), Reply.text("short enough"), key="key-FIRST")

    async def shrink(request: Request, error_class: ErrorClass) -> Request:
        assert error_class is ErrorClass.PAYLOAD_TOO_LARGE
        return Request("less", request.system)

    answered = await house.complete(house.target("pair"), house.target("backup"), shrink=shrink)

    assert [request.prompt for request in server.received(Endpoint.CHAT)] == ["What is new?", "less", "less"]
    assert answered.request.prompt == "less"
    assert [step[3] for step in await steps(house)] == ["compress", "retry", None]


async def test_a_request_that_is_still_too_long_is_not_made_smaller_again(
    house: House, server: Loopback
) -> None:
    """At most once in a call."""
    server.script(Endpoint.CHAT, Reply.error(413), key="key-FIRST")
    shrunk = []

    async def shrink(request: Request, _error_class: ErrorClass) -> Request:
        shrunk.append(request)
        return Request("less")

    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("pair"), house.target("backup"), shrink=shrink)

    assert exhausted.value.error_class is ErrorClass.PAYLOAD_TOO_LARGE
    assert len(shrunk) == 1
    assert len(server.received(Endpoint.CHAT)) == 2


async def test_a_closed_chain_is_waited_for_within_the_deadline(house: House, server: Loopback) -> None:
    """From the furthest target that was asked: nobody goes back behind it."""
    again = Reply.error(429, headers={"retry-after": "2"})
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "1.5"}), key="key-FIRST")
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "1.5"}), key="key-SECOND")
    server.script(Endpoint.CHAT, again, again, Reply.text("at last"), key="key-BACKUP")

    answered = await house.complete(house.target("pair"), house.target("backup"), waits=True)

    assert (answered.completion.text, answered.fallback_reason) == ("at last", "rate_limit")
    assert keys_of(server) == ["FIRST", "FIRST", "SECOND", "BACKUP", "BACKUP", "BACKUP"]
    *_, last = await house.attempts()
    *_, refused, asked_again = server.requests
    assert last.waited > 0
    assert asked_again.received_at - refused.received_at > 1.9
    assert "backup/small opens first" in last.wait_reason or "backup/" in last.wait_reason


async def test_an_opening_behind_the_deadline_is_told_and_not_waited_for(
    house: House, server: Loopback
) -> None:
    """The caller holds the job until then."""
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "600"}), key="key-BACKUP")

    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("backup"), waits=True)

    opening = exhausted.value.opening
    assert opening is not None
    assert 300 < (opening.at - clock.utcnow()).total_seconds() <= 600
    assert opening.closed == "backup/BACKUP (m)"


async def test_waits_of_a_closed_chain_are_counted(house: House, server: Loopback) -> None:
    """By the requests of one call: twelve, whatever the provider promises."""
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "0.05"}), key="key-BACKUP")

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("backup"), waits=True)

    assert len(server.received(Endpoint.CHAT)) == 12


@pytest.mark.parametrize("when", [CredentialMarked, TargetPassedOver])
async def test_what_has_opened_before_its_opening_was_looked_for_is_asked(
    house: House, server: Loopback, when: type[Event]
) -> None:
    """Its time is over as soon as it is marked, or passed over: that is no reason to give up."""
    closed = Reply.error(429, headers={"retry-after": "600"})
    server.script(Endpoint.CHAT, closed, Reply.text("open again"), key="key-BACKUP")
    if when is TargetPassedOver:
        with pytest.raises(ChainExhausted):
            await house.complete(house.target("backup"))
    engine = open_engine(url_of(house.path), writes=True)

    def open_it(event: Event) -> None:
        if isinstance(event, when):
            with engine.begin() as connection:
                connection.execute(update(mark_table).values(until=clock.utcnow()))

    house.services.events.listen(open_it)
    answered = await house.complete(house.target("backup"), waits=True)
    engine.dispose()

    assert answered.completion.text == "open again"


@pytest.mark.parametrize("allowed", [True, False])
async def test_moderation_falls_back_only_where_the_job_allows_it(
    house: House, server: Loopback, allowed: bool
) -> None:
    """`fallback_on: content_filter`."""
    server.script(Endpoint.CHAT, Reply.error(400, code="content_filter"), key="key-FIRST")
    on = frozenset({ErrorClass.CONTENT_FILTER}) if allowed else frozenset()
    chain = (house.target("pair"), house.target("backup"))

    if allowed:
        assert (await house.complete(*chain, fallback_on=on)).fallback_reason is ErrorClass.CONTENT_FILTER
    else:
        with pytest.raises(ChainExhausted):
            await house.complete(*chain, fallback_on=on)


async def test_a_primary_without_a_readable_key_stops_the_chain(house: House, server: Loopback) -> None:
    """A configuration's mistake is never papered over."""
    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("nobody"), house.target("backup"))

    assert exhausted.value.error_class is ErrorClass.CONFIG_ERROR
    assert await steps(house) == [(None, "passed_over", "config_error", "stop")]
    assert server.requests == []


async def test_a_fallback_without_a_readable_key_is_passed_over(house: House, server: Loopback) -> None:
    """The one after it answers."""
    server.script(Endpoint.CHAT, REFUSED, key="key-FIRST")
    server.script(Endpoint.CHAT, REFUSED, key="key-SECOND")

    answered = await house.complete(house.target("pair"), house.target("nobody"), house.target("backup"))

    assert answered.fallback_reason is ErrorClass.AUTH
    assert [row[1] for row in await steps(house)] == ["failed", "failed", "passed_over", "succeeded"]


async def test_a_401_on_a_login_is_refreshed_once_and_asked_again(house: House, server: Loopback) -> None:
    """Same credential; if the new token is refused too, no further refresh."""
    await house.log_in("login")
    server.script(Endpoint.CHAT, REFUSED, key="access-0")
    server.script(Endpoint.CHAT, REFUSED, key="access-2")

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("login"))

    assert await steps(house) == [
        ("login", "failed", "auth", "refresh"),
        ("login", "succeeded", None, None),
        ("login", "failed", "auth", "stop"),
    ]
    assert [row.purpose for row in await house.attempts()] == ["main", "refresh", "main"]


async def test_no_wait_is_begun_that_would_outlast_the_deadline(house: House, server: Loopback) -> None:
    busy = Reply.error(503, headers={"retry-after": "10"})
    server.script(Endpoint.CHAT, busy, GOOD)

    await house.complete(house.target("pair"), house.target("backup"), within=10)

    assert "retry" not in [recovery for *_, recovery in await steps(house)]
    assert keys_of(server) == ["FIRST", "BACKUP"]


async def test_no_answer_is_waited_for_after_the_deadline(house: House, server: Loopback) -> None:
    server.script(Endpoint.CHAT, Reply.text("never said").silent())

    with pytest.raises(ChainExhausted):
        async with wait_ends():
            await house.complete(house.target("pair"), house.target("backup"), within=0.2)

    assert keys_of(server) in ([], ["FIRST"]), "nobody else is asked then"


async def test_a_chain_whose_time_is_up_sends_nothing(house: House, server: Loopback) -> None:
    """Nor does it mark anything."""
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("pair"), house.target("backup"), within=0)

    assert server.requests == []
    assert await house.marks() == []


async def test_five_targets_are_asked_and_those_passed_over_do_not_count(
    house: House, server: Loopback
) -> None:
    """The sixth is for the next run, which passes over the first five."""
    server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), key="key-BACKUP")
    chain = [house.target("backup", f"m{number}") for number in range(1, 8)]
    with pytest.raises(ChainExhausted):
        await house.complete(*chain)
    asked = [request.model for request in server.received(Endpoint.CHAT)]
    server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), GOOD, key="key-BACKUP")

    answered = await house.complete(*chain)

    assert asked == ["m1", "m2", "m3", "m4", "m5"]
    assert answered.attempt.target.model == "m7"
    assert [request.model for request in server.received(Endpoint.CHAT)][5:] == ["m6", "m7"]


async def test_what_was_too_long_once_stays_with_larger_contexts(house: House, server: Loopback) -> None:
    """A larger one that fails does not hand it down to a smaller one."""
    server.script(Endpoint.CHAT, Reply.error(400, code="context_length_exceeded"), key="key-FIRST")
    server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), key="key-BACKUP")
    larger = replace(house.target("backup", "wide"), larger_context=True)

    with pytest.raises(ChainExhausted) as exhausted:
        await house.complete(house.target("pair"), larger, house.target("team"))

    assert exhausted.value.error_class is ErrorClass.CONTEXT_OVERFLOW
    assert keys_of(server) == ["FIRST", "BACKUP"]


async def test_a_closed_larger_context_is_waited_for(house: House, server: Loopback) -> None:
    """The first target is open, and of no use."""
    server.script(Endpoint.CHAT, Reply.error(400, code="context_length_exceeded"), key="key-FIRST")
    again = Reply.error(429, headers={"retry-after": "1"})
    server.script(Endpoint.CHAT, again, again, Reply.text("fits"), key="key-BACKUP")
    larger = replace(house.target("backup", "wide"), larger_context=True)

    answered = await house.complete(house.target("pair"), larger, waits=True)

    assert answered.completion.text == "fits"
    assert keys_of(server) == ["FIRST", "BACKUP", "BACKUP", "BACKUP"]


async def test_a_job_may_go_on_for_any_class(house: House, server: Loopback) -> None:
    """`fallback_on: [bad_request]` asks another model of the same provider."""
    server.script(Endpoint.CHAT, Reply.error(400, code="invalid_value"), GOOD, key="key-FIRST")
    on = frozenset({ErrorClass.BAD_REQUEST})

    answered = await house.complete(house.target("pair"), house.target("pair", "other"), fallback_on=on)

    assert answered.attempt.target.model == "other"


async def test_a_wait_that_ends_without_a_request_is_written_down(house: House, server: Loopback) -> None:
    """On the row that says that the target is passed over again."""
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "600"}), key="key-BACKUP")
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("backup"))
    await house.store.write(closed_for, 4 * SECOND)

    @asynccontextmanager
    async def rest() -> AsyncIterator[None]:
        await house.store.write(closed_for, HOUR)
        yield

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("backup"), waits=True, rest=rest)

    *_, last = await house.attempts()
    assert last.outcome == "passed_over"
    assert last.waited > 0
    assert "every target is closed" in last.wait_reason


def closed_for(connection: Connection, time: timedelta) -> None:
    """Have every mark last so long from now on."""
    connection.execute(update(mark_table).values(until=clock.utcnow() + time))


async def test_a_wait_for_an_opening_is_spent_resting(house: House, server: Loopback) -> None:
    """Whoever lent the run a worker has it back meanwhile, and only then."""
    again = Reply.error(429, headers={"retry-after": "1"})
    server.script(Endpoint.CHAT, again, again, Reply.text("rested"), key="key-BACKUP")
    seen = []

    @asynccontextmanager
    async def rest() -> AsyncIterator[None]:
        seen.append(len(server.requests))
        yield
        seen.append(len(server.requests))

    answered = await house.complete(house.target("backup"), waits=True, rest=rest)

    assert (answered.completion.text, seen) == ("rested", [2, 2])


async def test_what_is_wrong_with_the_request_is_not_waited_out(house: House, server: Loopback) -> None:
    """Although another run has closed the target meanwhile: opened again, it would refuse this again."""
    refused = Reply.error(400, code="content_filter").held()
    closed = Reply.error(429, headers={"retry-after": "11"})
    server.script(Endpoint.CHAT, refused, closed, Reply.text("asked again"), key="key-BACKUP")
    asking = asyncio.create_task(house.complete(house.target("backup"), waits=True))
    await server.wait_received(1)

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("backup"))
    server.let_go()
    with pytest.raises(ChainExhausted) as exhausted:
        await asking

    assert exhausted.value.error_class is ErrorClass.CONTENT_FILTER
    assert exhausted.value.opening is None
    assert len(server.requests) == 2
