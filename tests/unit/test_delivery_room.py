"""How much is sent at once: what hangs makes room, up to a bound."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from jobs.delivery.room import AT_MOST, AT_ONCE, STRANGERS_AT_MOST, STRANGERS_AT_ONCE, Room

pytestmark = pytest.mark.anyio
PATIENCE = 120.0


@pytest.mark.parametrize(("answers", "few"), [(True, AT_ONCE), (False, STRANGERS_AT_ONCE)])
async def test_few_begin_together(answers: bool, few: int) -> None:
    async with AsyncExitStack() as held:
        room = Room(hangs_after=PATIENCE)
        for _ in range(few):
            await held.enter_async_context(room.place(answers=answers))
        late = asyncio.create_task(held.enter_async_context(room.place(answers=answers)))
        await asyncio.sleep(0.05)

        assert not late.done()
        late.cancel()


async def test_a_place_that_is_left_is_taken_by_the_next() -> None:
    room, begun = Room(hangs_after=PATIENCE), 0
    async with asyncio.timeout(PATIENCE / 2):
        for _ in range(3 * AT_MOST):
            async with room.place():
                begun += 1
    assert begun == 3 * AT_MOST


@pytest.mark.parametrize(("answers", "much"), [(True, AT_MOST), (False, STRANGERS_AT_MOST)])
async def test_what_hangs_makes_room_until_there_is_too_much_of_it(answers: bool, much: int) -> None:
    async with AsyncExitStack() as held:
        room = Room(hangs_after=0.001)
        places = [AsyncExitStack() for _ in range(much)]
        async with asyncio.timeout(PATIENCE):
            for each in places:
                await held.enter_async_context(each)
                await each.enter_async_context(room.place(answers=answers))
        late = asyncio.create_task(held.enter_async_context(room.place(answers=answers)))
        await asyncio.sleep(0.05)
        waited = not late.done()

        await places[0].aclose()
        async with asyncio.timeout(PATIENCE):
            await late

    assert waited


async def test_however_many_strangers_hang_or_begin_those_who_answer_are_served() -> None:
    """The strangers that wait take the places of such as they are only."""
    room = Room(hangs_after=PATIENCE)

    async def hang() -> None:
        async with room.place():
            await asyncio.Event().wait()

    strangers = [asyncio.create_task(hang()) for _ in range(3 * AT_MOST)]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE / 2), room.place(answers=True), room.place(answers=True):
        pass

    for each in strangers:
        each.cancel()
    await asyncio.wait(strangers)


async def test_what_hung_and_has_ended_makes_room_once() -> None:
    """Else more and more would begin together."""
    room = Room(hangs_after=0.02)
    for _ in range(AT_ONCE):
        async with room.place():
            await asyncio.sleep(0.03)
    begun = 0

    async def hang() -> None:
        nonlocal begun
        async with room.place():
            begun += 1
            await asyncio.Event().wait()

    hanging = [asyncio.create_task(hang()) for _ in range(2 * AT_ONCE)]
    await asyncio.sleep(0)  # all of them take their turn in it, and no timer does

    assert begun == STRANGERS_AT_ONCE
    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
