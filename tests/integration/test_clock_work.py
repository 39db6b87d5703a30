"""Waking up: at the instants that are waited for, again after a failure, and anew after APScheduler died."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from support.hang_guard import wait_ends

from jobs import clock
from scheduler import clock_work
from scheduler.clock_work import ClockWork

pytestmark = pytest.mark.anyio


class Looked:
    """Remembers who was looked at, and answers with the next instants it was given."""

    def __init__(self, *answers: Mapping[str, datetime | None] | Exception) -> None:
        self.names: list[list[str]] = []
        self.at: list[datetime] = []
        self.happened = asyncio.Event()
        self._answers = list(answers)

    async def __call__(self, names: list[str]) -> Mapping[str, datetime | None]:
        self.names.append(names)
        self.at.append(clock.utcnow())
        self.happened.set()
        answer = self._answers.pop(0) if self._answers else {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def times(self, number: int) -> None:
        async with wait_ends():
            while len(self.names) < number:
                self.happened.clear()
                await self.happened.wait()


async def test_jobs_are_looked_at_when_they_are_due_and_not_before() -> None:
    soon = clock.utcnow() + timedelta(milliseconds=300)
    later = soon + timedelta(milliseconds=300)
    look = Looked({"a": later, "b": None})
    work = ClockWork(look)

    work.start({"a": soon, "b": soon, "never": None})
    await look.times(2)
    work.stop()

    assert [sorted(names) for names in look.names] == [["a", "b"], ["a"]]
    assert look.at[0] >= soon
    assert look.at[1] >= later


async def test_an_instant_that_is_waited_for_can_be_asked() -> None:
    soon = clock.utcnow() + timedelta(hours=1)
    work = ClockWork(Looked())

    work.start({"a": soon, "b": None})

    assert work.next_instants() == {"a": soon}
    assert work.fresh
    work.stop()


async def test_a_wait_is_never_longer_than_fifteen_seconds_at_a_time() -> None:
    """However far the next instant is: a clock that is set, and a change of zone, are noticed by then."""
    work = ClockWork(Looked())

    work.start({"a": clock.utcnow() + timedelta(days=1)})
    assert isinstance(work._scheduler, AsyncIOScheduler)
    (entry,) = work._scheduler.get_jobs()
    wait = entry.next_run_time - clock.utcnow()
    work.stop()

    assert wait <= timedelta(seconds=15)


async def test_a_look_that_fails_is_repeated_with_the_same_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_work, "RETRY_AFTER", timedelta(milliseconds=50))
    look = Looked(RuntimeError("planted"), {})
    work = ClockWork(look)

    work.start({"a": clock.utcnow()})
    await look.times(2)
    work.stop()

    assert look.names == [["a"], ["a"]]


async def test_a_scheduler_that_died_is_noticed_and_started_anew() -> None:
    look = Looked()
    work = ClockWork(look)
    work.start({"a": clock.utcnow() + timedelta(seconds=1)})
    assert isinstance(work._scheduler, AsyncIOScheduler)
    async with wait_ends():
        while work._scheduler._timeout is None:
            await asyncio.sleep(0)
        work._scheduler._stop_timer()  # what an exception in its main loop comes to: nothing wakes it again
        while not work.mend():
            await asyncio.sleep(0.05)
    await look.times(1)
    work.stop()

    assert look.names == [["a"]]


async def test_nothing_is_mended_while_all_is_well() -> None:
    work = ClockWork(Looked())
    work.start({"a": clock.utcnow() + timedelta(hours=1)})

    assert not work.mend()
    work.stop()


async def test_a_job_that_is_due_again_at_once_is_looked_at_at_once() -> None:
    """APScheduler's own turns, ten seconds from one to the next, are not what it waits for."""
    look = Looked(*({"a": clock.utcnow()} for _ in range(9)), {"a": None})
    work = ClockWork(look)

    work.start({"a": clock.utcnow()})
    await look.times(10)
    work.stop()

    assert look.names == [["a"]] * 10


async def test_after_a_step_of_the_clock_every_job_is_looked_at_once() -> None:
    far = clock.utcnow() + timedelta(days=1)
    look = Looked({"a": far, "b": far}, {"a": None, "b": None})
    work = ClockWork(look)

    work.start({"a": far, "b": far, "never": None})
    work.renew()
    await look.times(1)
    work.renew()
    await look.times(2)
    work.stop()

    assert [sorted(names) for names in look.names] == [["a", "b"], ["a", "b"]]


async def test_what_is_due_is_not_forgotten_when_the_scheduler_is_exchanged_as_it_fires() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    looked: list[str] = []

    async def look(names: list[str]) -> Mapping[str, datetime | None]:
        begun.set()
        await go_on.wait()
        looked.extend(names)
        return {}

    work = ClockWork(look)
    work.start({"a": clock.utcnow()})
    async with wait_ends():
        await begun.wait()
        work.stop()
        go_on.set()
        while not looked:
            await asyncio.sleep(0)

    assert looked == ["a"]


async def test_a_look_that_does_not_end_is_not_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is fed while all is fresh: it ends a daemon whose planner hangs while its loop turns."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def look(_names: list[str]) -> Mapping[str, datetime | None]:
        begun.set()
        await go_on.wait()
        return {}

    work = ClockWork(look)
    work.start({"a": clock.utcnow()})
    async with wait_ends():
        await begun.wait()
        looks = work.fresh
        monkeypatch.setattr(clock_work, "LONGEST_LOOK", 0.0)
        hangs = not work.fresh
        go_on.set()
        await work.quit()

    assert looks
    assert hangs
    assert work.fresh
