"""Every line of a run says whose it is: libraries', threads' and tasks' lines too, and no other line does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from structlog.contextvars import bind_contextvars
from support.hang_guard import wait_ends
from support.house import House, keyed, logged_in, open_house
from support.logbook import Book, logbook

from jobs import clock
from jobs.commands import Commands
from jobs.definition import Auxiliary, Job
from jobs.events import RunClaimed, RunDecided
from jobs.providers.chain import Chain
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.run import ClaimedRun, Trigger
from jobs.runner import run_job
from jobs.store import instances, runs
from jobs.workshop import Workshop
from scheduler import logs
from scheduler.worker_pool import WorkerPool

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)
library = logging.getLogger("some.library")


@pytest.fixture
def book() -> Iterator[Book]:
    with logbook() as book:
        yield book


def run(number: int, job: str = "digest") -> ClaimedRun:
    return ClaimedRun(number, job, NOW, Trigger.SCHEDULE)


async def ended(workers: WorkerPool) -> None:
    async with wait_ends():
        while workers.health().running or workers.health().waiting:
            await asyncio.sleep(0.005)


async def test_lines_of_runs_beside_each_other_are_told_apart(book: Book) -> None:
    async def work(claimed: ClaimedRun) -> None:
        for step in range(3):
            library.info("%s step %d", claimed.job, step)
            await asyncio.sleep(0)
        await asyncio.to_thread(library.info, "%s in a thread", claimed.job)
        await asyncio.create_task(said(claimed))

    async def said(claimed: ClaimedRun) -> None:
        library.info("%s in a task", claimed.job)

    workers = WorkerPool(work, limit=5)
    workers.submit(run(number, f"job-{number}") for number in range(1, 21))
    await ended(workers)
    library.info("afterwards")

    assert len(book.lines()) == 20 * 5 + 1
    for line in book.lines()[:-1]:
        assert line["event"].startswith(f"{line['job']} ")
        assert line["job"] == f"job-{line['run_id']}"
    assert "job" not in book.line("afterwards")


async def test_a_run_that_begins_where_another_rests_or_ends_has_nothing_of_it(book: Book) -> None:
    async def work(claimed: ClaimedRun) -> None:
        if claimed.id == 1:
            bind_contextvars(attempt=5)
            async with workers.resting(1):
                await asyncio.sleep(0.01)
        library.info("at work")

    workers = WorkerPool(work, limit=1)
    with logs.lines_of(run(9, "whoever submits")):
        workers.submit([run(1, "first"), run(2, "second"), run(3, "third")])
    await ended(workers)

    said = {(line["job"], line["run_id"], line.get("attempt")) for line in book.lines()}
    assert said == {("first", 1, 5), ("second", 2, None), ("third", 3, None)}


async def test_an_event_about_another_run_carries_nothing_of_the_run_that_says_it(book: Book) -> None:
    with logs.lines_of(run(1)):
        bind_contextvars(attempt=5)
        logs.hear(RunClaimed(run(2, "follower"), 0.0))
        logs.hear(RunDecided("follower", NOW, "skipped", "overlap", 1))
        logs.hear(RunClaimed(run(1), 0.0))

    follower, decided, own = book.lines()
    assert (follower["job"], follower["run_id"]) == ("follower", 2)
    assert "attempt" not in follower
    assert decided["job"] == "follower"
    assert not {"run_id", "attempt"} & set(decided)
    assert own["attempt"] == 5


@dataclass
class Scene:
    """A provider, the parts of a process, and a job whose lines are read."""

    house: House
    server: Loopback
    workshop: Workshop
    job: Job

    async def run(self, job: Job) -> None:
        """Run a job once, in the workers, as the daemon does."""
        workshop, now = self.workshop, clock.utcnow()
        claimed = await self.house.store.write(
            runs.add, job=job.name, trigger=Trigger.MANUAL, instance_id=workshop.instance_id, now=now
        )
        workers = WorkerPool(lambda one: run_job(one, job, workshop, zone=ZoneInfo("UTC")), limit=1)
        workers.submit([claimed])
        await ended(workers)


@asynccontextmanager
async def scene(tmp_path: Path, *, login: bool = False) -> AsyncIterator[Scene]:
    async with Loopback() as server:
        row = logged_in(server.codex_url, server.token_url) if login else keyed(server.base_url)
        async with open_house(tmp_path, {"house": row}) as house:
            now = clock.utcnow()
            instance = await house.store.write(instances.register, kind="daemon", version="0", now=now)
            redactor, events = house.services.redactor, house.services.events
            events.listen(logs.hear)
            commands = Commands({"PATH": "/usr/bin:/bin"}, redactor)
            workshop = Workshop(house.store, Chain(house.services), events, redactor, commands, instance)
            chain = (house.target("house"),)
            job = Job(name="digest", prompt="hi", chain=chain, timeout=timedelta(seconds=20))
            yield Scene(house, server, workshop, job)


async def test_lines_of_a_run_name_the_attempt_from_its_opening_on_until_the_next(
    tmp_path: Path, book: Book
) -> None:
    async with scene(tmp_path) as s:
        s.server.script(Endpoint.CHAT, Reply.error(500, message="x").after(0), Reply.text("Fine."))
        await s.run(replace(s.job, title=Auxiliary(s.job.chain)))

    lines = [line for line in book.lines() if "run_id" in line]
    assert {(line["job"], line["run_id"]) for line in lines} == {("digest", 1)}
    opened = [line["attempt"] for line in lines if line["event"] == "attempt opened"]
    assert opened == [1, 2, 3]
    said = [(line["event"], line.get("attempt")) for line in lines]
    assert said[0] == ("run started", None)
    assert said.index(("attempt opened", 1)) < said.index(("attempt settled", 1))
    assert said.index(("attempt settled", 1)) < said.index(("attempt opened", 2))
    assert ("run finished", 2) in said
    assert said[-1] == ("attempt settled", 3)  # the title's, after the end
    assert all(attempt is not None for _event, attempt in said[1:])


async def test_a_refresh_is_told_with_the_run_that_needed_it_and_its_own_attempt(
    tmp_path: Path, book: Book
) -> None:
    async with scene(tmp_path, login=True) as s:
        await s.house.log_in("house", left=timedelta(minutes=-1))
        s.server.script(Endpoint.TOKEN, Reply.tokens(access_token="a2", refresh_token="r2"))
        await s.run(s.job)

    refresh = [line for line in book.lines() if line.get("purpose") == "refresh"]
    assert [line["event"] for line in refresh] == ["attempt opened", "attempt settled"]
    assert {(line["job"], line["run_id"], line["attempt"]) for line in refresh} == {("digest", 1, 1)}
    settled = book.line("refresh settled")
    assert (settled["job"], settled["run_id"], settled["attempt"]) == ("digest", 1, 1)
