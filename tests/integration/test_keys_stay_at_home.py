"""Redirects: whoever a server points to gets nothing, neither a request nor a key."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.hostile import HostileServer, redirect, said
from support.house import keyed, logged_in, open_house

from jobs.errors import ErrorClass
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint

pytestmark = pytest.mark.anyio
STATUSES = (301, 302, 303, 307, 308)


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield the provider that is asked next."""
    async with Loopback() as server:
        yield server


@pytest.fixture
async def trap() -> AsyncIterator[Loopback]:
    """Yield whoever the redirects lead to; nobody ever asks it."""
    async with Loopback() as trap:
        yield trap
        assert trap.requests == []


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    """Yield a server that has no ways yet."""
    with HostileServer({}) as hostile:
        yield hostile


def elsewhere(where: str, hostile: HostileServer, trap: Loopback) -> str:
    """Return a location: on another port or host, without a scheme, or on the very same server."""
    return {
        "port": f"{trap.base_url}/chat/completions",
        "host": f"http://localhost:{trap.port}/v1/chat/completions",
        "scheme-less": f"//localhost:{trap.port}/v1/chat/completions",
        "path": "/trap/v1/chat/completions",
        "user": f"http://user:word@127.0.0.1:{trap.port}/v1/chat/completions",
        "nonsense": "http://[::bad",
    }[where]


@pytest.mark.parametrize("where", ["port", "host", "scheme-less", "path", "user", "nonsense"])
@pytest.mark.parametrize("status", STATUSES)
async def test_a_provider_that_redirects_is_followed_by_the_next_target_only(
    tmp_path: Path, server: Loopback, trap: Loopback, hostile: HostileServer, where: str, status: int
) -> None:
    hostile.add("away", said(redirect(status, elsewhere(where, hostile, trap))))
    hostile.add("trap", said(b""))
    providers = {"away": keyed(hostile.url("away"), "AWAY"), "next": keyed(server.base_url, "NEXT")}

    async with open_house(tmp_path, providers) as house:
        answered = await house.complete(house.target("away"), house.target("next"))

    assert answered.attempt.target.provider == "next"
    assert {way for way, _ in hostile.asked} == {"away"}
    assert b"secret-of-AWAY" in hostile.asked[0][1]
    assert [one.key for one in server.requests] == ["secret-of-NEXT"]


@pytest.mark.parametrize("where", ["port", "host", "path"])
@pytest.mark.parametrize("status", STATUSES)
async def test_a_token_endpoint_that_redirects_gives_no_token_away(
    tmp_path: Path, server: Loopback, trap: Loopback, hostile: HostileServer, where: str, status: int
) -> None:
    """A refresh token is worth more than a key."""
    location = elsewhere(where, hostile, trap).replace("/v1/chat/completions", Endpoint.TOKEN)
    hostile.add("oauth", said(redirect(status, location)))
    hostile.add("trap", said(b""))
    token_url = hostile.url("oauth").removesuffix("/v1") + "/token"
    providers = {"login": logged_in(server.base_url, token_url), "next": keyed(server.base_url, "NEXT")}

    async with open_house(tmp_path, providers) as house:
        await house.log_in("login", left=timedelta(seconds=-60))
        answered = await house.complete(house.target("login"), house.target("next"))

    assert answered.attempt.target.provider == "next"
    assert answered.fallback_reason is ErrorClass.AUTH_UNAVAILABLE
    assert [way for way, _ in hostile.asked] == ["oauth"]
    assert [one.key for one in server.requests] == ["secret-of-NEXT"]
