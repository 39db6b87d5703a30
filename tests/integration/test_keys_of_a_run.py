"""What a job's keys do to one run: condition, files, budget, silence, further tries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, update
from support.hang_guard import wait_ends
from support.hostile import held, said
from support.house import House, keyed, open_house
from support.http_peer import HttpPeer, answer

from jobs import clock
from jobs.commands import Commands
from jobs.definition import Auxiliary, Command, Job, Retry
from jobs.errors import ErrorClass
from jobs.events import Event, Events, RunFinished, RunRetries
from jobs.providers.chain import Chain
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Finish, Reply
from jobs.run import ClaimedRun, Reason, RunState, Trigger
from jobs.runner import Done, run_job
from jobs.secret import Secret
from jobs.store import instances, ledger, runs
from jobs.store.tables import runs as run_table
from jobs.workshop import Workshop

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
UTC = ZoneInfo("UTC")
REFUSED = Reply.error(400, message="no such thing")
AGAIN = Retry(2, (SECOND / 10,), frozenset({ErrorClass.BAD_REQUEST}))


@dataclass
class Scene:
    """A provider, the parts of a process, and a job whose chain is that provider."""

    house: House
    server: Loopback
    workshop: Workshop
    job: Job
    heard: list[Event] = field(default_factory=list)

    async def run(self, job: Job, run: ClaimedRun | None = None) -> Done:
        """Do one try of a run by hand, a new one unless it is given."""
        return await run_job(run or await self.asked_for(), job, self.workshop, zone=UTC)

    async def asked_for(self) -> ClaimedRun:
        """Insert a run."""
        return await self.house.store.write(
            runs.add,
            job=self.job.name,
            trigger=Trigger.MANUAL,
            instance_id=self.workshop.instance_id,
            now=clock.utcnow(),
        )

    async def row(self, run_id: int = 1) -> Any:
        """Return a run's row."""
        row = await self.house.store.read(ledger.run, run_id)
        assert row is not None
        return row


@asynccontextmanager
async def scene(tmp_path: Path, url: str | None = None) -> AsyncIterator[Scene]:
    """Give a scene; the provider is at a URL of the test's own, where it names one."""
    async with Loopback() as server, open_house(tmp_path, {"house": keyed(url or server.base_url)}) as house:
        heard: list[Event] = []
        now = clock.utcnow()
        instance = await house.store.write(instances.register, kind="daemon", version="0", now=now)
        redactor = house.services.redactor
        commands = Commands({"PATH": "/usr/bin:/bin"}, redactor)
        workshop = Workshop(
            house.store, Chain(house.services), Events(heard.append), redactor, commands, instance
        )
        job = Job(name="digest", prompt="hi", chain=(house.target("house"),), timeout=60 * SECOND)
        yield Scene(house, server, workshop, job, heard)


async def test_a_condition_that_says_no_skips_the_run_before_anything_else(tmp_path: Path) -> None:
    gathers = Command(("touch", str(tmp_path / "gathered")))
    async with scene(tmp_path) as s:
        done = await s.run(replace(s.job, condition=Command(("false",)), gather=gathers))
        row = await s.row()

    assert (done.outcome.state, row["state"], row["reason"]) == (RunState.SKIPPED, "skipped", "condition")
    assert row["error_message"] is None
    assert not (tmp_path / "gathered").exists()
    assert s.server.requests == []


async def test_a_condition_that_says_yes_runs_and_one_that_cannot_say_fails(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        yes = await s.run(replace(s.job, condition=Command(("true",))))
        broken = await s.run(replace(s.job, condition=Command(("exit 255",), shell=True)))

    assert (yes.outcome.state, broken.outcome.state) == (RunState.SUCCEEDED, RunState.FAILED)
    assert (broken.outcome.reason, broken.outcome.message) == (
        "condition",
        "the shell command ended with 255",
    )
    assert len(s.server.requests) == 1


async def test_files_are_read_by_each_run(tmp_path: Path) -> None:
    prompt, system = tmp_path / "p.md", tmp_path / "s.md"
    prompt.write_text("about {{ job }}")
    system.write_text("be terse")
    async with scene(tmp_path) as s:
        job = replace(s.job, prompt="", prompt_file=prompt, system_file=system)
        await s.run(job)
        prompt.write_text("more about {{ job }}")
        await s.run(job)
        prompt.unlink()
        gone = await s.run(job)

    assert [asked.prompt for asked in s.server.requests] == ["about digest", "more about digest"]
    assert [asked.json()["messages"][0]["content"] for asked in s.server.requests] == ["be terse"] * 2
    assert (gone.outcome.state, gone.outcome.reason) == (RunState.FAILED, "template")
    assert gone.outcome.message == f"{prompt} does not exist; write it, or name another"


@pytest.mark.parametrize(("finish", "end"), [("stop", "daily Digest"), ("length", "daily [secret]")])
async def test_an_answer_that_ends_in_a_word_with_which_a_secret_begins_keeps_it_unless_it_was_cut(
    tmp_path: Path, finish: Finish, end: str
) -> None:
    """So do its title and the prompt that is kept."""
    async with scene(tmp_path) as s:
        s.workshop.redactor.learn([Secret("Digest-for-the-team-2026")])
        s.server.script(Endpoint.CHAT, Reply.text("Here is your daily Digest", finish=finish))
        titled = Auxiliary((s.house.target("house"),))
        await s.run(replace(s.job, prompt="Write my daily Digest", title=titled))
        row = await s.row()

    assert row["output"] == f"Here is your {end}"
    assert row["title"] == f"Here is your {end}"
    assert row["prompt"] == "Write my daily Digest"


async def test_what_is_left_of_the_days_tokens_bounds_the_answer_and_then_the_runs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.run(replace(s.job, max_tokens_per_day=1000))
        row = await s.row()
        used = row["input_tokens"] + row["output_tokens"]
        await s.run(replace(s.job, max_tokens_per_day=1000))
        last = await s.run(replace(s.job, max_tokens_per_day=2 * used))
        row = await s.row(3)

    assert [asked.json()["max_completion_tokens"] for asked in s.server.requests] == [1000, 1000 - used]
    assert (last.outcome.state, row["reason"], row["tries"]) == (RunState.SKIPPED, "budget", 1)


async def test_an_answer_is_silent_where_the_expression_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.server.script(Endpoint.CHAT, *map(Reply.text, ("fine", "fine", "not fine")))
        job = replace(s.job, silent_when="output == last_output")
        silent = [(await s.run(job)).outcome.silent for _ in range(3)]
        kept = [(await s.row(n))["silent"] for n in (1, 2, 3)]

    assert silent == kept == [False, True, False]


async def test_an_expression_that_fails_costs_no_answer_and_is_not_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as s:
        done = await s.run(replace(s.job, silent_when="output[99] == 1 / 0"))

    assert (done.outcome.state, done.outcome.silent) == (RunState.SUCCEEDED, False)
    assert "silent_when" in caplog.text
    assert "it counts as not silent" in caplog.text


async def test_a_failed_chain_is_tried_again_later_by_the_same_run(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.server.script(Endpoint.CHAT, REFUSED, Reply.text("now it goes"))
        job = replace(s.job, retry=AGAIN)
        first = await s.run(job)
        waits = await s.row()
        assert first.again is not None
        second = await s.run(job, first.again)
        row, attempts = await s.row(), await s.house.attempts()

    assert (waits["state"], waits["reason"], waits["tries"]) == ("queued", "bad_request", 1)
    assert waits["not_before"] == first.again.not_before == first.outcome.not_before
    assert (second.again, row["state"], row["tries"], row["error_class"]) == (None, "succeeded", 2, None)
    assert row["started_at"] == waits["started_at"]
    assert [each._mapping["try"] for each in attempts] == [1, 2]
    (told,) = (event for event in s.heard if isinstance(event, RunRetries))
    assert (told.run.id, told.run.tries, told.not_before) == (1, 1, waits["not_before"])
    assert "no such thing" in told.why
    assert len([event for event in s.heard if isinstance(event, RunFinished)]) == 1


async def test_when_all_tries_have_failed_the_run_has(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.server.script(Endpoint.CHAT, REFUSED)
        job, run, states = replace(s.job, retry=AGAIN), await s.asked_for(), []
        for _ in range(3):
            done = await s.run(job, run)
            states.append(done.outcome.state)
            run = done.again or run
        row = await s.row()

    assert states == [RunState.QUEUED, RunState.QUEUED, RunState.FAILED]
    assert (row["state"], row["error_class"], row["tries"]) == ("failed", "bad_request", 3)


async def test_the_timeout_goes_on_from_the_first_try(tmp_path: Path) -> None:
    """Nothing of it is left, and the answer would come: as much time again would be enough for that."""
    async with scene(tmp_path) as s:
        s.server.script(Endpoint.CHAT, REFUSED, Reply.text("too late"))
        job = replace(s.job, retry=AGAIN)
        first = await s.run(job)
        assert first.again is not None
        assert first.again.started_at is not None
        began = first.again.started_at - job.timeout
        await s.house.store.write(began_at, began)
        last = await s.run(job, first.again)
        row = await s.row()

    assert last.outcome.state is RunState.TIMED_OUT
    assert row["started_at"] == began


def began_at(connection: Connection, when: datetime) -> None:
    """Let the run have begun then."""
    connection.execute(update(run_table).values(started_at=when))


async def test_a_run_that_is_to_end_is_not_tried_again(tmp_path: Path) -> None:
    """The wish was written down while its first try was at work."""
    cancelled = asyncio.Event()
    async with HttpPeer(held(cancelled, said(answer(400)))) as peer, scene(tmp_path, peer.url("/v1")) as s:
        trying = asyncio.ensure_future(s.run(replace(s.job, retry=AGAIN)))
        async with wait_ends():
            while not peer.taken:
                await asyncio.sleep(0.01)
        await s.house.store.write(runs.request_cancel, 1, Reason.OPERATOR)
        cancelled.set()
        done = await trying
        row = await s.row()

    assert (done.outcome.state, done.again) == (RunState.CANCELLED, None)
    assert (row["state"], row["reason"]) == ("cancelled", "operator")
    assert [event.outcome for event in s.heard if isinstance(event, RunFinished)] == [done.outcome]
