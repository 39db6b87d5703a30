"""A process that has lost its run to another one, after a minute of standing still, asks nobody any more."""

import asyncio
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from support.hang_guard import wait_ends
from support.hostile import held, said
from support.house import REQUEST, House, keyed, open_house
from support.http_peer import HttpPeer, answer

from jobs import clock
from jobs.commands import Commands
from jobs.definition import Job
from jobs.errors import FenceLost
from jobs.events import Event, Events, RunFinished
from jobs.providers.loopback import Loopback
from jobs.run import ClaimedRun, Trigger
from jobs.runner import run_job
from jobs.store import instances, ledger, runs
from jobs.store.recovery import OnGone, recover
from jobs.workshop import Workshop

pytestmark = pytest.mark.anyio


async def workshop_of(house: House, heard: list[Event]) -> Workshop:
    """Return a workshop of a process that has an instance of its own."""
    instance = await house.store.write(instances.register, kind="daemon", version="0", now=clock.utcnow())
    redactor = house.services.redactor
    return Workshop(
        house.store, house.chain, Events(heard.append), redactor, Commands({}, redactor), instance
    )


async def taken_over(house: House, owner: int) -> tuple[ClaimedRun, ...]:
    """Let another process find that the owner of the run is gone, and run it again."""
    now = clock.utcnow()
    await house.store.write(instances.stop, owner, now=now)
    other = await house.store.write(instances.register, kind="daemon", version="0", now=now)
    found = await house.store.write(recover, instance_id=other, now=now, on_gone=OnGone(rerun=["digest"]))
    return found.ours


LATE = b'{"choices": [{"message": {"content": "late"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize("reply", [answer(503), answer(200, body=LATE)], ids=["next target", "an end"])
async def test_after_its_run_was_taken_over_a_process_sends_nothing_and_ends_nothing(
    tmp_path: Path, reply: bytes
) -> None:
    """Its request in flight is answered; no other follows, and the run is as the other process has it."""
    heard: list[Event] = []
    taken_over_by_then = asyncio.Event()
    async with HttpPeer(held(taken_over_by_then, said(reply))) as first, Loopback() as second:
        providers = {"first": keyed(first.url("/v1")), "second": keyed(second.base_url)}
        async with open_house(tmp_path, providers) as house:
            workshop = await workshop_of(house, heard)
            job = Job(
                name="digest",
                prompt=REQUEST.prompt,
                chain=(house.target("first"), house.target("second")),
                timeout=timedelta(minutes=2),
            )
            run = await house.store.write(
                runs.add,
                job="digest",
                trigger=Trigger.RETRY,
                instance_id=workshop.instance_id,
                now=clock.utcnow(),
            )
            working = asyncio.create_task(run_job(run, job, workshop, zone=UTC))  # type: ignore[arg-type]
            async with wait_ends():
                while not first.taken:
                    await asyncio.sleep(0.01)

            (taken,) = await taken_over(house, workshop.instance_id)
            taken_over_by_then.set()
            with pytest.raises(FenceLost):
                await working

            row = await house.store.read(ledger.run, run.id)
            tried = await house.attempts()
    assert row is not None
    assert (row["state"], row["tries"], row["output"], taken.id) == ("queued", 1, None, run.id)
    assert (len(first.taken), second.requests) == (1, [])
    assert [attempt.outcome for attempt in tried] == ["unknown"]
    assert not [event for event in heard if isinstance(event, RunFinished)]
