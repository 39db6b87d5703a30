"""Refreshing logins: once for everybody, never twice with one token, and nothing readable at rest."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from support.hang_guard import wait_ends
from support.hostile import held, said
from support.house import House, keyed, logged_in, open_house
from support.http_peer import HttpPeer, answer
from support.ledger import NOW

from jobs import clock
from jobs.errors import ErrorClass
from jobs.events import RefreshSettled
from jobs.mark import Status
from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.rows import ProviderRow
from jobs.secret import Secret
from jobs.store import credentials
from jobs.store.tables import marks

pytestmark = pytest.mark.anyio
EXPIRED = timedelta(seconds=-1)
SOON = timedelta(minutes=2)
REFUSED = Reply.error(401, code="token_expired")
SAID_REFUSED = said(answer(401, body=b'{"error": {"code": "token_expired"}}'))
SAID_DEAD = said(answer(400, body=b'{"error": "invalid_grant"}'))
FINE = b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}'


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider whose refresh tokens can be used once."""
    async with Loopback(single_use=True, revoke_on_reuse=True) as server:
        yield server


def providers_of(server: Loopback) -> dict[str, ProviderRow]:
    """Return a provider with a login, and one with a key."""
    return {
        "login": logged_in(server.base_url, server.token_url),
        "backup": keyed(f"{server.origin}/backup/v1", "BACKUP"),
    }


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house that knows both."""
    async with open_house(tmp_path, providers_of(server)) as house:
        yield house


def refreshes(server: Loopback) -> list[str | None]:
    """Return the refresh tokens that were sent, in order."""
    return [one.key for one in server.received(Endpoint.TOKEN)]


async def status_of(house: House, provider: str = "login") -> tuple[Status, str | None] | None:
    """Return what the newest mark on the login says."""
    marks = [mark for mark in await house.marks() if mark.provider == provider]
    return (marks[-1].status, marks[-1].code) if marks else None


async def test_an_expired_token_is_refreshed_before_it_is_used(house: House, server: Loopback) -> None:
    """RFC 6749 section 6, and the new token is stored."""
    await house.log_in("login", left=EXPIRED)

    await house.complete(house.target("login"))

    (asked,) = server.received(Endpoint.TOKEN)
    assert asked.form() == {"grant_type": "refresh_token", "refresh_token": "refresh-0", "client_id": "app"}
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["access-1"]
    assert (await house.login("login")).generation == 1
    assert [row.purpose for row in await house.attempts()] == ["refresh", "main"]
    assert RefreshSettled("login", "login", "succeeded") in house.events


async def test_a_token_with_time_left_is_not_refreshed(house: House, server: Loopback) -> None:
    """More than five minutes, or a tenth of its life."""
    await house.log_in("login", left=timedelta(minutes=6))

    await house.complete(house.target("login"))

    assert refreshes(server) == []


async def test_a_token_near_its_end_is_refreshed_early(house: House, server: Loopback) -> None:
    """Before a run begins that would outlive it."""
    await house.log_in("login", left=timedelta(minutes=4))

    await house.complete(house.target("login"))

    assert refreshes(server) == ["refresh-0"]


async def test_fifty_runs_at_once_send_one_refresh(house: House, server: Loopback) -> None:
    """The others adopt what the first one was given."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="refresh-1").after(0.3))

    await asyncio.gather(*(house.complete(house.target("login")) for _ in range(50)))

    assert refreshes(server) == ["refresh-0"]
    assert {one.key for one in server.received(Endpoint.CHAT)} == {"new"}
    assert [row.outcome for row in await house.attempts()] == ["succeeded"] * 51


async def test_fifty_runs_that_are_refused_at_once_send_one_refresh(house: House, server: Loopback) -> None:
    """A 401 in the middle of many runs is one refresh, too, and nobody falls back."""
    await house.log_in("login")
    server.script(Endpoint.CHAT, REFUSED.after(0.2), key="access-0")
    chain = (house.target("login"), house.target("backup"))

    answers = await asyncio.gather(*(house.complete(*chain) for _ in range(50)))

    assert refreshes(server) == ["refresh-0"]
    assert {answer.fallback_reason for answer in answers} == {None}
    assert await house.marks() == []


async def test_a_token_that_another_process_stored_is_adopted(server: Loopback, tmp_path: Path) -> None:
    """The row is read again inside the lease."""
    stored = asyncio.Event()
    async with HttpPeer(held(stored, SAID_REFUSED), said(answer(200, body=FINE))) as peer:
        providers = {"login": logged_in(peer.url("/v1"), server.token_url)}
        async with open_house(tmp_path, providers) as house, open_house(tmp_path, providers) as other:
            await house.log_in("login")
            asking = asyncio.create_task(house.complete(house.target("login")))
            await came(peer)
            await other.log_in("login", access="newer", refresh="refresh-9", generation=1)
            stored.set()
            await asking

    assert refreshes(server) == []
    assert [one.headers["authorization"] for one in peer.taken] == ["Bearer access-0", "Bearer newer"]
    assert RefreshSettled("login", "login", "adopted") in house.events


async def came(peer: HttpPeer) -> None:
    """Wait for a request."""
    async with wait_ends():
        while not peer.taken:
            await asyncio.sleep(0.01)


async def test_two_processes_refresh_one_at_a_time(house: House, server: Loopback, tmp_path: Path) -> None:
    """The lease is a row in the database."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="refresh-1").after(0.3))

    async with open_house(tmp_path, providers_of(server)) as other:
        await asyncio.gather(house.complete(house.target("login")), other.complete(other.target("login")))

    assert refreshes(server) == ["refresh-0"]


async def test_the_new_token_is_stored_before_it_is_used(house: House, server: Loopback) -> None:
    """A crash after the refresh loses nothing."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.CHAT, Reply.text("fine").after(0.5))

    asking = asyncio.create_task(house.complete(house.target("login")))
    await server.wait_received(1, endpoint=Endpoint.CHAT)

    stored = await house.login("login")
    keyring = house.services.vault.keyring
    assert keyring.unseal(stored.access_token) == Secret("access-1")
    assert stored.refresh_token is not None
    assert keyring.unseal(stored.refresh_token) == Secret("refresh-1")
    assert stored.lease_owner is None
    await asking


async def test_a_run_that_is_cancelled_does_not_take_its_refresh_along(
    house: House, server: Loopback
) -> None:
    """Its answer would be lost, with a token that is spent."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="refresh-1").after(0.2))
    asking = asyncio.create_task(house.complete(house.target("login")))
    await server.wait_received(1, endpoint=Endpoint.TOKEN)

    asking.cancel()
    await asyncio.wait([asking])
    await house.services.refresher.close()

    assert (await house.login("login")).generation == 1


@pytest.mark.parametrize(
    "lost", [Reply.text("").cut(), Reply.tokens(access_token="new", refresh_token="r1").cut(10)]
)
async def test_a_lost_answer_is_never_answered_by_the_same_refresh_token(
    house: House, server: Loopback, lost: Reply
) -> None:
    """The token may be spent: the login is dead, says so, and asks for a new one."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, lost)
    chain = (house.target("login"), house.target("backup"))

    first = await house.complete(*chain)
    await house.store.write(credentials.reset, [("login", "login")], now=NOW)
    second = await house.complete(*chain)

    assert refreshes(server) == ["refresh-0"]
    assert first.fallback_reason is ErrorClass.AUTH_UNAVAILABLE
    assert second.fallback_reason is ErrorClass.AUTH_DEAD
    assert await status_of(house) == (Status.DEAD, None)
    message = (await house.attempts())[-2].message
    assert message.startswith("the answer to the refresh of attempt 1 was lost")
    assert message.endswith("log in again with `promptd auth login login login`")


async def test_a_token_that_is_still_valid_is_used_while_its_refresh_is_lost(
    house: House, server: Loopback
) -> None:
    """To its last second, without asking for another."""
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, Reply.text("").cut())

    for _ in range(2):
        await house.complete(house.target("login"))

    assert refreshes(server) == ["refresh-0"]
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["access-0", "access-0"]
    assert await house.marks() == []


async def test_a_login_that_was_made_anew_meanwhile_is_not_dead(server: Loopback, tmp_path: Path) -> None:
    """The stored token is read once more before its refusal counts."""
    made_anew = asyncio.Event()
    async with HttpPeer(held(made_anew, SAID_DEAD)) as peer:
        providers = {"login": logged_in(server.base_url, peer.url("/oauth/token"))}
        async with open_house(tmp_path, providers) as house:
            await house.log_in("login", left=EXPIRED)
            asking = asyncio.create_task(house.complete(house.target("login")))
            await came(peer)
            await house.log_in("login", access="new", login_id="login-2")
            made_anew.set()
            await asking
            marks = await house.marks()

    assert [one.key for one in server.received(Endpoint.CHAT)] == ["new"]
    assert marks == []


async def test_a_login_without_a_refresh_token_says_what_to_do(house: House, server: Loopback) -> None:
    """There is nothing to send."""
    await house.log_in("login", refresh=None, left=EXPIRED)

    with pytest.raises(ChainExhausted, match="log in again"):
        await house.complete(house.target("login"))

    assert refreshes(server) == []


async def test_a_death_word_on_a_login_counts_only_after_a_refresh(house: House, server: Loopback) -> None:
    """A refresh that succeeded, and the same words after it, prove it (hard rule 11)."""
    await house.log_in("login")
    dead = Reply.error(401, code="token_invalidated")
    server.script(Endpoint.CHAT, dead, Reply.text("fine"))
    await house.complete(house.target("login"))
    assert await house.marks() == []

    server.script(Endpoint.CHAT, dead)
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("login"))

    assert await status_of(house) == (Status.DEAD, "token_invalidated")


def ten_minutes_pass(connection: Connection) -> None:
    """Make every mark so much older."""
    ago = clock.utcnow() - timedelta(minutes=10)
    until = ago + timedelta(minutes=5)
    connection.execute(update(marks).where(marks.c.until.is_not(None)).values(made_at=ago, until=until))


async def test_a_login_refused_after_each_refresh_becomes_invalid(house: House, server: Loopback) -> None:
    """The second time in a row; that refreshing works is no success of the login."""
    await house.log_in("login")
    server.script(Endpoint.CHAT, REFUSED)

    for _ in range(2):
        with pytest.raises(ChainExhausted):
            await house.complete(house.target("login"))
        await house.store.write(ten_minutes_pass)

    assert await status_of(house) == (Status.INVALID, "token_expired")
