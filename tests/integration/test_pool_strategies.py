"""Which credential is asked: in each strategy's order, and around whoever's quota is used up."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.house import House, keyed, open_house

from jobs.credential import Strategy
from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.rows import CredentialRow, ProviderRow

pytestmark = pytest.mark.anyio
LIMITED = Reply.error(429, code="rate_limit_exceeded")
BROKE = Reply.error(402, code="no_money")
THREE = ("ONE", "TWO", "THREE")


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


def asked(server: Loopback) -> list[str]:
    """Return whose keys the requests came with, in order."""
    return [str(one.key).removeprefix("secret-of-") for one in server.received(Endpoint.CHAT)]


def grouped(server: Loopback, **groups: str) -> ProviderRow:
    """Return a provider whose credentials share organisations."""
    rows = (
        CredentialRow(label=label, key=f"env:{label}", quota_group=group) for label, group in groups.items()
    )
    return ProviderRow(base_url=server.base_url, credentials=tuple(rows))


async def ask(house: House, times: int = 1, model: str = "m") -> None:
    for _ in range(times):
        await house.complete(house.target("pool", model))


async def test_fill_first_asks_the_first_until_it_is_closed(tmp_path: Path, server: Loopback) -> None:
    async with open_house(tmp_path, {"pool": keyed(server.base_url, *THREE)}) as house:
        await ask(house, 3)
        server.script(Endpoint.CHAT, LIMITED, key="secret-of-ONE")
        await ask(house, 2)

    assert asked(server) == ["ONE", "ONE", "ONE", "ONE", "TWO", "TWO"]


async def test_round_robin_goes_around_and_goes_on_where_the_process_before_it_stopped(
    tmp_path: Path, server: Loopback
) -> None:
    providers = {"pool": keyed(server.base_url, *THREE, strategy=Strategy.ROUND_ROBIN)}
    async with open_house(tmp_path, providers) as house:
        await ask(house, 4)
    async with open_house(tmp_path, providers) as house:
        await ask(house, 3)

    assert asked(server) == ["ONE", "TWO", "THREE", "ONE", "TWO", "THREE", "ONE"]


async def test_round_robin_leaves_out_who_is_closed(tmp_path: Path, server: Loopback) -> None:
    server.script(Endpoint.CHAT, BROKE, key="secret-of-TWO")
    providers = {"pool": keyed(server.base_url, *THREE, strategy=Strategy.ROUND_ROBIN)}
    async with open_house(tmp_path, providers) as house:
        await ask(house, 5)

    assert asked(server) == ["ONE", "TWO", "THREE", "ONE", "THREE", "ONE"]


async def test_least_used_asks_who_was_asked_least_whatever_the_model(
    tmp_path: Path, server: Loopback
) -> None:
    async with open_house(tmp_path, {"pool": keyed(server.base_url, "ONE")}) as house:
        await ask(house, 3)
    providers = {"pool": keyed(server.base_url, *THREE, strategy=Strategy.LEAST_USED)}
    async with open_house(tmp_path, providers) as house:
        for number in range(6):
            await ask(house, model=f"m{number % 2}")

    assert asked(server)[3:] == ["TWO", "THREE"] * 3


async def test_random_asks_everybody_and_in_no_order(tmp_path: Path, server: Loopback) -> None:
    """One of three stays away from 60 draws once in 10,000,000,000 runs of this test."""
    providers = {"pool": keyed(server.base_url, *THREE, strategy=Strategy.RANDOM)}
    async with open_house(tmp_path, providers) as house:
        await ask(house, 60)

    keys = asked(server)
    assert set(Counter(keys)) == set(THREE)
    assert keys != [THREE[number % 3] for number in range(60)]


@pytest.mark.parametrize("strategy", Strategy)
async def test_a_second_request_goes_with_the_same_credential_in_every_strategy(
    tmp_path: Path, server: Loopback, strategy: Strategy
) -> None:
    """Backing off is no rotation."""
    server.script(Endpoint.CHAT, Reply.error(503), Reply.text("fine"))
    async with open_house(tmp_path, {"pool": keyed(server.base_url, *THREE, strategy=strategy)}) as house:
        await ask(house)

    first, second = asked(server)
    assert first == second


async def test_a_429_goes_to_another_organisation_never_to_a_member_of_the_same(
    tmp_path: Path, server: Loopback
) -> None:
    server.script(Endpoint.CHAT, LIMITED, key="secret-of-A1")
    pool = grouped(server, A1="org-a", A2="org-a", B1="org-b", A3="org-a")
    async with open_house(tmp_path, {"pool": pool}) as house:
        await ask(house)
        await ask(house)
        marks = await house.marks()

    assert asked(server) == ["A1", "B1", "B1"]
    assert [(mark.scope, mark.quota_group, mark.model, mark.credential) for mark in marks] == [
        ("group_model", "org-a", "m", None)
    ]


async def test_a_rate_limit_closes_its_group_for_its_model_only(tmp_path: Path, server: Loopback) -> None:
    server.script(Endpoint.CHAT, LIMITED, key="secret-of-A1", model="m")
    pool = grouped(server, A1="org-a", A2="org-a", B1="org-b")
    async with open_house(tmp_path, {"pool": pool}) as house:
        await ask(house)
        await ask(house, model="another")

    assert asked(server) == ["A1", "B1", "A1"]


async def test_an_empty_balance_closes_every_member_for_every_model(tmp_path: Path, server: Loopback) -> None:
    server.script(Endpoint.CHAT, BROKE, key="secret-of-A1")
    pool = grouped(server, A1="org-a", A2="org-a")
    async with open_house(tmp_path, {"pool": pool}) as house:
        with pytest.raises(ChainExhausted):
            await ask(house)
        with pytest.raises(ChainExhausted) as exhausted:
            await ask(house, model="another")

    assert asked(server) == ["A1"]
    assert "A2 is exhausted: quota_billing no_money, attempt 1" in str(exhausted.value)


async def test_a_refused_key_closes_itself_and_not_its_group(tmp_path: Path, server: Loopback) -> None:
    server.script(Endpoint.CHAT, Reply.error(401, code="invalid_api_key"), key="secret-of-A1")
    pool = grouped(server, A1="org-a", A2="org-a")
    async with open_house(tmp_path, {"pool": pool}) as house:
        await ask(house)
        await ask(house)

    assert asked(server) == ["A1", "A2", "A2"]


async def test_a_group_of_one_provider_is_no_group_of_another(tmp_path: Path, server: Loopback) -> None:
    """Groups never span providers, whatever they are called."""
    server.script(Endpoint.CHAT, BROKE, key="secret-of-A1")
    providers = {"pool": grouped(server, A1="org-a"), "other": grouped(server, O1="org-a")}
    async with open_house(tmp_path, providers) as house:
        await house.complete(house.target("pool"), house.target("other"))
        await house.complete(house.target("other"))

    assert asked(server) == ["A1", "O1", "O1"]


async def test_a_model_that_a_plan_does_not_include_closes_it_for_that_model(
    tmp_path: Path, server: Loopback
) -> None:
    server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), key="secret-of-ONE", model="m")
    async with open_house(tmp_path, {"pool": keyed(server.base_url, "ONE", "TWO")}) as house:
        with pytest.raises(ChainExhausted):
            await ask(house)
        await ask(house)
        await ask(house, model="another")

    assert asked(server) == ["ONE", "TWO", "ONE"]
