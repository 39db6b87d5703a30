"""What a token endpoint may answer to a refresh, and what becomes of the login."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.hostile import held, said
from support.house import House, keyed, logged_in, open_house
from support.http_peer import HttpPeer, answer

from jobs.errors import ErrorClass
from jobs.mark import Status
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.rows import ProviderRow

pytestmark = pytest.mark.anyio
EXPIRED = timedelta(seconds=-1)
SOON = timedelta(minutes=2)


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


UNAVAILABLE = {
    "408": Reply.error(408),
    "429": Reply.error(429),
    "500": Reply.error(500),
    "503": Reply.error(503),
    "html": Reply.raw(200, {"content-type": "text/html"}, b"<html>sign in</html>"),
    "html 403": Reply.raw(403, {"content-type": "text/html"}, b"<html>challenge</html>"),
    "no token": Reply.json(200, {"token_type": "Bearer"}),
}
TAKEN = (UNAVAILABLE["html"], UNAVAILABLE["no token"])


@pytest.mark.parametrize("reply", UNAVAILABLE.values(), ids=UNAVAILABLE)
async def test_a_token_endpoint_out_of_order_leaves_a_valid_token_in_use(
    house: House, server: Loopback, reply: Reply
) -> None:
    """And nothing is marked."""
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, reply)

    answered = await house.complete(house.target("login"))

    assert answered.fallback_reason is None
    assert [row.error_class for row in await house.attempts()] == ["auth_unavailable", None]
    assert await house.marks() == []


@pytest.mark.parametrize("reply", UNAVAILABLE.values(), ids=UNAVAILABLE)
async def test_without_a_valid_token_the_next_target_answers_for_a_minute(
    house: House, server: Loopback, reply: Reply
) -> None:
    """Then it may be tried again, unless it was answered 200: its token may be spent, whatever came along."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, reply, Reply.tokens(access_token="new"))

    answered = await house.complete(house.target("login"), house.target("backup"))

    assert answered.fallback_reason is ErrorClass.AUTH_UNAVAILABLE
    (mark,) = await house.marks()
    assert mark.until == mark.made_at + timedelta(minutes=1)
    assert ((await house.login("login")).spent_by is None) == (reply not in TAKEN)


async def test_a_refused_connection_may_be_tried_again(tmp_path: Path, server: Loopback) -> None:
    """The refresh token never left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/oauth/token"
        providers = {**providers_of(server), "login": logged_in(server.base_url, nobody)}
        async with open_house(tmp_path, providers) as house:
            await house.log_in("login", left=EXPIRED)

            await house.complete(house.target("login"), house.target("backup"))

            assert (await house.login("login")).spent_by is None
            assert [row.error_class for row in await house.attempts()] == ["auth_unavailable", None]


DEATHS = {
    "bare 401": Reply.raw(401),
    "invalid_grant": Reply.token_error(400, "invalid_grant"),
    "reused": Reply.error(401, code="refresh_token_reused"),
    "unauthorized_client": Reply.token_error(403, "unauthorized_client"),
}


@pytest.mark.parametrize("reply", DEATHS.values(), ids=DEATHS)
async def test_a_refusal_of_the_refresh_is_the_end_of_the_login(
    house: House, server: Loopback, reply: Reply
) -> None:
    """Until there is a new one; the fallback answers meanwhile."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, reply)
    chain = (house.target("login"), house.target("backup"))

    answers = [await house.complete(*chain) for _ in range(2)]

    assert {answer.fallback_reason for answer in answers} == {ErrorClass.AUTH_DEAD}
    assert len(refreshes(server)) == 1
    assert [mark.status for mark in await house.marks()] == [Status.DEAD]

    await house.log_in("login", access="new", login_id="login-2")
    assert (await house.complete(*chain)).fallback_reason is None


async def test_a_silent_token_endpoint_does_not_keep_a_run_from_its_fallback(
    tmp_path: Path, server: Loopback
) -> None:
    """Half of the time that is left is spent on it; the refresh itself goes on, and its token is not lost."""
    answered_by_another = asyncio.Event()
    tokens = b'{"access_token": "late", "refresh_token": "next", "token_type": "Bearer", "expires_in": 3600}'
    async with HttpPeer(held(answered_by_another, said(answer(200, body=tokens)))) as peer:
        providers = {
            "login": logged_in(server.base_url, peer.url("/oauth/token")),
            "backup": keyed(f"{server.origin}/backup/v1", "BACKUP"),
        }
        async with open_house(tmp_path, providers) as house:
            await house.log_in("login", left=EXPIRED)
            answered = await house.complete(house.target("login"), house.target("backup"), within=6)
            answered_by_another.set()
            await house.services.refresher.close()
            login = await house.login("login")

    assert answered.fallback_reason is ErrorClass.AUTH_UNAVAILABLE
    assert (login.generation, login.spent_by) == (1, None)
    assert len(peer.taken) == 1
