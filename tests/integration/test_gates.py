"""A provider's gate: a place is given back however its request ends, and the wait for one is written down."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.hang_guard import wait_ends
from support.house import House, keyed, open_house

from jobs.events import ChainWaits
from jobs.providers.call import Answered, ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply

pytestmark = pytest.mark.anyio
HANGS = Reply.text("never said").silent()


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house with a provider that lets two in."""
    async with open_house(tmp_path, {"narrow": keyed(server.base_url, max_concurrency=2)}) as house:
        yield house


def asking(house: House) -> asyncio.Task[Answered]:
    return asyncio.ensure_future(house.complete(house.target("narrow"), house.target("narrow", "other")))


async def test_who_finds_no_place_sends_nothing_and_is_ended_by_its_own_deadline(
    house: House, server: Loopback
) -> None:
    server.script(Endpoint.CHAT, HANGS)
    inside = [asking(house) for _ in range(2)]
    await server.wait_received(2)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await house.complete(house.target("narrow"))

    assert len(server.requests) == len(await house.attempts()) == 2
    assert await house.marks() == []
    for each in inside:
        each.cancel()
    await asyncio.gather(*inside, return_exceptions=True)


async def test_a_place_is_free_again_when_its_request_was_cancelled(house: House, server: Loopback) -> None:
    server.script(Endpoint.CHAT, HANGS, HANGS, Reply.text("at last"))
    inside = [asking(house) for _ in range(2)]
    await server.wait_received(2)
    waiting = asking(house)
    async with wait_ends():
        while not any(isinstance(event, ChainWaits) for event in house.events):
            await asyncio.sleep(0.01)

    inside[0].cancel()
    async with wait_ends():
        answered = await waiting

    assert answered.completion.text == "at last"
    last = (await house.attempts())[-1]
    assert last.waited > 0
    assert last.wait_reason == "max_concurrency of narrow was reached"
    inside[1].cancel()
    await asyncio.gather(*inside, return_exceptions=True)


async def test_a_backoff_holds_no_place(house: House, server: Loopback) -> None:
    """Two that wait for their second request let a third one through."""
    later = Reply.error(429, headers={"retry-after-ms": "6000"})
    server.script(Endpoint.CHAT, later, later, Reply.text("at once"), Reply.text("then"))
    backing_off = [asking(house) for _ in range(2)]
    await server.wait_received(2)

    answered = await asking(house)

    assert not any(each.done() for each in backing_off)
    assert answered.completion.text == "at once"
    assert {each.completion.text for each in await asyncio.gather(*backing_off)} == {"then"}


async def test_a_closed_target_is_passed_over_without_waiting_for_a_place(tmp_path: Path) -> None:
    """What needs nothing from a provider is not held up by it."""
    async with Loopback() as server:
        providers = {
            "narrow": keyed(server.base_url, max_concurrency=1),
            "wide": keyed(f"{server.origin}/wide/v1", "WIDE"),
        }
        async with open_house(tmp_path, providers) as house:
            missing = Reply.error(404, code="model_not_found")
            server.script(Endpoint.CHAT, missing, HANGS, Reply.text("wide answers"))
            with pytest.raises(ChainExhausted):
                await house.complete(house.target("narrow", "gone"))
            inside = asking(house)
            await server.wait_received(2)

            answered = await house.complete(house.target("narrow", "gone"), house.target("wide"))

            inside.cancel()
            await asyncio.gather(inside, return_exceptions=True)

    assert (answered.completion.text, answered.fallback_reason) == ("wide answers", "model_not_found")
