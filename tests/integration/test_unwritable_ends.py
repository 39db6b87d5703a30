"""A run always has an end in its row, also where the end that it came to cannot be written."""

from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from support.house import REQUEST, House, keyed, open_house

from jobs import clock
from jobs.commands import Commands
from jobs.definition import Job
from jobs.events import Event, Events, RunFinished
from jobs.providers.call import Answered, Call
from jobs.providers.chain import Chain
from jobs.providers.loopback import Loopback
from jobs.request import Request
from jobs.run import Reason, RunState, Trigger
from jobs.runner import run_job
from jobs.store import instances, ledger, runs
from jobs.workshop import Workshop

pytestmark = pytest.mark.anyio
HALF_A_PAIR = "half of a pair: \ud800"


class Babbling(Chain):
    """A chain whose answers are no Unicode: the client would not let them through."""

    async def complete(self, request: Request, call: Call) -> Answered:
        """Answer as the chain does, in words that no database takes."""
        answered = await super().complete(request, call)
        return replace(answered, completion=replace(answered.completion, text=HALF_A_PAIR))


async def workshop_of(house: House, heard: list[Event]) -> Workshop:
    """Return a workshop with such a chain."""
    instance = await house.store.write(instances.register, kind="command", version="0", now=clock.utcnow())
    redactor = house.services.redactor
    return Workshop(
        house.store,
        Babbling(house.services),
        Events(heard.append),
        redactor,
        Commands({}, redactor),
        instance,
    )


async def test_an_end_that_no_database_takes_becomes_an_internal_failure(tmp_path: Path) -> None:
    heard: list[Event] = []
    async with Loopback() as server, open_house(tmp_path, {"house": keyed(server.base_url)}) as house:
        workshop = await workshop_of(house, heard)
        job = Job(
            name="digest",
            prompt=REQUEST.prompt,
            chain=(house.target("house"),),
            timeout=timedelta(minutes=1),
        )
        run = await house.store.write(
            runs.add,
            job="digest",
            trigger=Trigger.MANUAL,
            instance_id=workshop.instance_id,
            now=clock.utcnow(),
        )

        outcome = (await run_job(run, job, workshop, zone=UTC)).outcome  # type: ignore[arg-type]

        row = await house.store.read(ledger.run, run.id)
    assert row is not None
    assert (outcome.state, outcome.reason) == (RunState.FAILED, Reason.INTERNAL)
    assert (row["state"], row["reason"]) == ("failed", "internal")
    assert row["error_message"] == "its end cannot be written as it is: UnicodeEncodeError"
    assert [event.outcome for event in heard if isinstance(event, RunFinished)] == [outcome]
