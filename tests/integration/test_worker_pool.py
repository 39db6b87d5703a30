"""The workers: bounded, in order, drained with a deadline."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jobs.run import ClaimedRun, Reason, Trigger
from scheduler.worker_pool import WorkerPool

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int) -> ClaimedRun:
    return ClaimedRun(number, "job", NOW, Trigger.SCHEDULE)


class Work:
    """Work that goes on until it is let go; remembers what happened to it."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[object] = []
        self.go = asyncio.Event()

    async def __call__(self, claimed: ClaimedRun) -> None:
        self.begun.append(claimed.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError as exc:
            self.cancelled.append(exc.args[0])
            raise
        self.ended.append(claimed.id)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_run_at_once_and_the_rest_follow_in_order() -> None:
    work = Work()
    pool = WorkerPool(work, limit=2)

    pool.submit([run(1), run(2), run(3)])
    await settle()
    assert (work.begun, pool.health().running, pool.health().waiting) == ([1, 2], 2, 1)

    work.go.set()
    await settle()
    assert work.ended == [1, 2, 3]


async def test_what_an_earlier_process_left_goes_first() -> None:
    work = Work()
    pool = WorkerPool(work, limit=1)

    pool.submit([run(1), run(4)])
    pool.recover([run(2), run(3)])
    work.go.set()
    await settle()

    assert work.ended == [1, 2, 3, 4]


async def test_a_higher_limit_takes_effect_at_once() -> None:
    work = Work()
    pool = WorkerPool(work, limit=1)
    pool.submit([run(1), run(2)])

    pool.limit(2)
    await settle()

    assert work.begun == [1, 2]


async def test_a_drain_lets_running_work_end_and_begins_nothing() -> None:
    work = Work()
    pool = WorkerPool(work, limit=1)
    pool.submit([run(1), run(2)])
    await settle()

    draining = asyncio.create_task(pool.drain(timedelta(seconds=10)))
    await settle()
    work.go.set()

    assert await draining == 0
    assert work.ended == [1]
    assert pool.health().draining


async def test_what_outlasts_the_drain_is_cancelled_with_its_reason() -> None:
    work = Work()
    pool = WorkerPool(work, limit=2)
    pool.submit([run(1), run(2)])
    await settle()

    assert await pool.drain(timedelta(milliseconds=1)) == 2
    assert work.cancelled == [Reason.SHUTDOWN, Reason.SHUTDOWN]


async def test_work_that_raises_frees_its_place() -> None:
    ended: list[int] = []

    async def failing(claimed: ClaimedRun) -> None:
        ended.append(claimed.id)
        raise RuntimeError("planted")

    pool = WorkerPool(failing, limit=1)
    pool.submit([run(1), run(2)])
    await settle()

    assert ended == [1, 2]
    assert pool.health().running == 0


async def test_a_run_that_rests_gives_its_place_away_and_gets_one_back() -> None:
    """While it waits for a provider, others work; it comes back before those that have not begun."""
    begun: list[str] = []
    wake, go = asyncio.Event(), asyncio.Event()

    async def work(claimed: ClaimedRun) -> None:
        begun.append(f"{claimed.id} begins")
        if claimed.id == 1:
            async with pool.resting(claimed.id):
                await wake.wait()
            begun.append("1 goes on")
        else:
            await go.wait()

    pool = WorkerPool(work, limit=1)
    pool.submit([run(1), run(2), run(3)])
    await settle()
    assert begun == ["1 begins", "2 begins"]

    wake.set()
    await settle()
    assert begun == ["1 begins", "2 begins"]

    go.set()
    await settle()
    assert begun == ["1 begins", "2 begins", "1 goes on", "3 begins"]
    assert pool.health().running == 0


async def test_a_run_that_is_cancelled_while_it_rests_leaves_no_hole() -> None:
    """Its place, and the one that it waits for."""
    wake, go = asyncio.Event(), asyncio.Event()
    begun: list[int] = []

    async def work(claimed: ClaimedRun) -> None:
        begun.append(claimed.id)
        if claimed.id == 1:
            async with pool.resting(claimed.id):
                await wake.wait()
        await go.wait()

    pool = WorkerPool(work, limit=1)
    pool.submit([run(1), run(2), run(3)])
    await settle()
    wake.set()
    await settle()

    pool.cancel_all()
    await settle()

    assert begun == [1, 2, 3]
    go.set()
    await settle()
    assert pool.health().running == 0


async def test_a_run_that_comes_back_as_its_task_ends_is_still_known() -> None:
    """Its next try begins under the same number: it can be cancelled, and is drained."""
    returns = [run(1)]

    async def once_more(claimed: ClaimedRun) -> None:
        if returns:
            pool.submit([returns.pop()])
            return
        await asyncio.Event().wait()

    pool = WorkerPool(once_more, limit=4)
    pool.submit([run(1)])
    await settle()

    assert pool.health().running == 1
    assert await pool.drain(timedelta(seconds=0.01)) == 1
