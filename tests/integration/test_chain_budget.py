"""The twelve requests of one call: a refresh is one of them, a target passed over is none."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.house import House, keyed, logged_in, open_house

from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.recovery import MOST_REQUESTS

pytestmark = pytest.mark.anyio
KEYS = tuple(f"KEY{number}" for number in range(20))


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house with a login and a provider of twenty keys."""
    providers = {
        "login": logged_in(server.base_url, server.token_url),
        "many": keyed(f"{server.origin}/many/v1", *KEYS),
        "closed": keyed(f"{server.origin}/closed/v1", "CLOSED"),
    }
    async with open_house(tmp_path, providers) as house:
        yield house


async def test_refreshes_are_counted(house: House, server: Loopback) -> None:
    """A request, its 401, the refresh and the second request are three; nine keys are left to try."""
    server.script(Endpoint.CHAT, Reply.error(401))
    await house.log_in("login", left=timedelta(minutes=50))

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("login"), house.target("many"))

    assert len(server.requests) == MOST_REQUESTS
    assert len(server.received(Endpoint.TOKEN)) == 1
    assert len({one.key for one in server.received(Endpoint.CHAT)}) == 2 + 9


async def test_targets_passed_over_are_not_counted(house: House, server: Loopback) -> None:
    server.script(Endpoint.CHAT, Reply.error(402), key="secret-of-CLOSED")
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("closed"))
    server.script(Endpoint.CHAT, Reply.error(401))

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("closed"), house.target("closed", "other"), house.target("many"))

    assert len(server.requests) == 1 + MOST_REQUESTS
    rows = await house.attempts()
    assert [row.outcome for row in rows[1:3]] == ["passed_over", "passed_over"]
    assert rows[-1].recovery == "stop"


async def test_a_call_of_its_own_has_a_budget_of_its_own(house: House, server: Loopback) -> None:
    """Such as a repair: what the first call spent is not held against it."""
    server.script(Endpoint.CHAT, Reply.error(401))
    with pytest.raises(ChainExhausted):
        await house.complete(house.target("many"))

    with pytest.raises(ChainExhausted):
        await house.complete(house.target("many"))

    assert len(server.requests) == len(KEYS)
