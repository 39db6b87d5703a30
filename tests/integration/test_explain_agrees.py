"""`explain` and what the next run then really does, over random states of credentials.

The judge is the provider on loopback: which requests it received, with which key, for which model. A failure
names its seed and state: `EXPLAIN_SEED=7 EXPLAIN_STATES=311-312 pytest …` draws the same state again.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, update
from support.credential_states import State, draw_state, write_state
from support.house import House, keyed, open_house

from jobs import clock
from jobs.commands import Commands
from jobs.credential import Strategy
from jobs.definition import Job
from jobs.providers.call import Call
from jobs.providers.chain import Chain
from jobs.providers.explain import Explanation, Part, explain
from jobs.providers.explain import Seen as Target
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Received, Reply
from jobs.providers.registry import Registry
from jobs.run import Outcome, RunState, Trigger
from jobs.runner import run_job
from jobs.store import instances, ledger, runs
from jobs.store.tables import marks
from jobs.workshop import Workshop

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("EXPLAIN_SEED", "20261121"))
FIRST, _, END = os.environ.get("EXPLAIN_STATES", "0-1000").partition("-")
STATES = range(int(FIRST), int(END))
UTC = ZoneInfo("UTC")
IN_ONE_HOUSE = 100
LANES = 8  # a state has providers of its own, so that states do not meet

Request = tuple[str, str | None, str | None]


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    async with Loopback() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    async with open_house(tmp_path, {}) as house:
        yield house


@dataclass(frozen=True, slots=True)
class Seen:
    """What was explained, what the run came to, and what the provider received."""

    state: State
    found: Explanation
    outcome: Outcome
    attempts: list[Any]
    received: list[Request]


async def live_through(house: House, server: Loopback, number: int) -> Seen:
    """Write a state, explain it, and run the job."""
    random = Random(f"{SEED} {number}")
    state = draw_state(random, number, server.origin, server.token_url)
    house.environ.update(state.environ)
    services = replace(house.services, registry=state.registry)
    await house.store.write(write_state, state, services.vault, random, now=clock.utcnow())
    for name in {target.provider for target in state.job.chain}:
        fresh = {"access_token": f"renewed-of-{name}", "expires_in": 3600}
        server.script(Endpoint.TOKEN, Reply.json(200, fresh), key=f"refresh-of-{name}")
    call = Call(
        state.job.chain,
        clock.monotonic() + state.job.timeout.total_seconds(),
        fallback_on=state.job.fallback_on,
    )
    found = await house.store.read(explain, state.registry, services.vault, call, now=clock.utcnow())
    run_id, outcome = await run_once(house, Chain(services), state)
    rows = await house.store.read(ledger.attempts_of, run_id)
    asked = [each for each in map(_request, server.requests) if f"p{number}-" in f"{each[0]} {each[1]}"]
    return Seen(state, found, outcome, rows, asked)


async def run_once(house: House, chain: Chain, state: State) -> tuple[int, Outcome]:
    """Run the state's job as `job run` does."""
    now = clock.utcnow()
    instance = await house.store.write(instances.register, kind="command", version="0", now=now)
    add = partial(runs.add, job=state.job.name, trigger=Trigger.MANUAL)
    run = await house.store.write(add, instance_id=instance, now=now)
    redactor = house.services.redactor
    workshop = Workshop(house.store, chain, house.services.events, redactor, Commands({}, redactor), instance)
    return run.id, (await run_job(run, state.job, workshop, zone=UTC)).outcome


def _request(one: Received) -> Request:
    return one.path, one.key, one.model


def foretold(state: State, found: Explanation) -> list[Request]:
    """Return the requests that an explanation means; the provider answers each of them well."""
    if found.used is None:
        return []
    (used,) = found.used.used
    target, name = found.used.target, found.used.target.provider
    key = f"renewed-of-{name}" if used.refreshes else state.keys[name, used.credential.label]
    refresh = [(str(Endpoint.TOKEN), f"refresh-of-{name}", None)] if used.refreshes else []
    return [*refresh, (f"/{name}/v1/chat/completions", key, target.model)]


def difference(seen: Seen) -> str | None:
    """Say where an explanation and its run differ; None where they agree."""
    found, outcome = seen.found, seen.outcome
    if seen.received != (meant := foretold(seen.state, found)):
        return f"{meant} was foretold, {seen.received} was received"
    if (outcome.state is RunState.SUCCEEDED) != (found.used is not None):
        return f"the run {outcome.state}"
    if (outcome.error_class, outcome.hold is None) != (found.fails, found.opening is None):
        return f"the run failed with {outcome.error_class}, {outcome.hold}"
    for each in found.targets:
        rows = [row for row in seen.attempts if row["target_index"] == each.index]
        last = (rows[-1]["credential"], rows[-1]["error_class"]) if rows else None
        if not is_told_by(last, each):
            return f"target {each.index}: the ledger says {last}"
    return None


def is_told_by(last: tuple[str | None, str | None] | None, each: Target) -> bool:
    """Say whether the last attempt at a target, its credential and class, is what was explained of it."""
    if last is None or each.part is Part.NOT_REACHED:
        return last is None and each.part is Part.NOT_REACHED
    if each.part is Part.PASSED_OVER:
        return last[1] == each.error_class
    return last == (each.used[0].credential.label, None)


def kinds(seen: Seen) -> set[str]:
    """Name what a state has of each kind that must occur, so that the agreement is worth something."""
    found, used = seen.found, seen.found.used
    candidates = [each for target in found.targets for each in target.candidates]
    marks = [each.closed.mark for each in candidates if each.closed and each.closed.mark]
    return {
        *(f"closed by a mark on {mark.scope}" for mark in marks),
        *(f"a credential {each.part}" for each in candidates),
        f"target {used.index} is used" if used and used.index < 3 else "a later one, or none, is used",
        "nobody is asked" if used is None else "somebody is asked",
        *(["a login is refreshed"] if used and used.used[0].refreshes else []),
        *(["a login is lost"] if any(each.part is Part.LOST for each in candidates) else []),
        *(["held until an opening"] if found.opening else []),
        *(["stopped by a missing key"] if found.fails == "config_error" else []),
    }


async def ended(house: House, registry: Registry, job: Job) -> tuple[Explanation, Outcome]:
    """Explain a job, then run it."""
    state = State(0, registry, job, {}, {})
    services = replace(house.services, registry=registry)
    call = Call(job.chain, clock.monotonic() + job.timeout.total_seconds())
    found = await house.store.read(explain, registry, services.vault, call, now=clock.utcnow())
    _, outcome = await run_once(house, Chain(services), state)
    return found, outcome


async def test_a_run_waits_as_explained_and_then_asks_whom_was_named(house: House, server: Loopback) -> None:
    """Both targets are closed; the second one opens first, within the deadline."""
    registry = Registry()
    for name in ("slow", "soon"):
        registry.add(name, keyed(f"{server.origin}/{name}/v1", f"KEY_OF_{name}"))
        house.environ[f"KEY_OF_{name}"] = f"key-of-{name}"
    chain = (registry.target("slow", "m"), registry.target("soon", "m"))
    limited = Reply.error(429, headers={"retry-after": "600"})
    for name in ("slow", "soon"):
        server.script(Endpoint.CHAT, limited, Reply.text("fine"), key=f"key-of-{name}")
    await ended(house, registry, Job("first", "x", chain, timeout=timedelta(seconds=60)))
    before = len(server.requests)
    await house.store.write(soon_opens)

    found, outcome = await ended(house, registry, Job("second", "x", chain, timeout=timedelta(seconds=60)))

    assert found.waits
    assert found.used is not None
    assert [each.part for each in found.targets] == [Part.PASSED_OVER] * 2
    assert str(found.used.target) == "soon/m"
    assert outcome.served is not None
    assert outcome.served.provider == "soon"
    assert [one.key for one in server.requests[before:]] == ["key-of-soon"]


def soon_opens(connection: Connection) -> None:
    """Let the provider `soon` open in some seconds."""
    mark = update(marks).where(marks.c.provider == "soon")
    connection.execute(mark.values(until=clock.utcnow() + timedelta(seconds=4)))


async def test_where_chance_decides_a_run_asks_one_of_those_named(house: House, server: Loopback) -> None:
    """One of three keys is closed; over some runs both others are asked, and never that one."""
    registry = Registry()
    registry.add("dice", keyed(server.base_url, "A", "B", "C", strategy=Strategy.RANDOM))
    house.environ.update({label: f"key-{label}" for label in "ABC"})
    job = Job("dice", "x", (registry.target("dice", "m"),), timeout=timedelta(seconds=30))
    server.script(Endpoint.CHAT, Reply.error(402), key="key-A")
    while not await house.marks():
        await ended(house, registry, job)
    before = len(server.requests)

    for _ in range(20):
        found, _ = await ended(house, registry, job)
        assert found.used is not None
        assert sorted(each.credential.label for each in found.used.used) == ["B", "C"]

    assert {one.key for one in server.requests[before:]} == {"key-B", "key-C"}


async def seen_in_one_house(directory: Path, numbers: Sequence[int]) -> Sequence[Seen]:
    """Live through some states, a few at a time: what is known of earlier ones makes each one dearer."""
    lanes = asyncio.Semaphore(LANES)
    async with Loopback() as server, open_house(directory, {}) as house:

        async def seen(number: int) -> Seen:
            async with lanes:
                return await live_through(house, server, number)

        return await asyncio.gather(*map(seen, numbers))


async def test_a_run_asks_whom_explain_has_named_over_a_thousand_states(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Requests, keys and models are those foretold; so is the class of every target that is passed over."""
    occurred: Counter[str] = Counter()
    for first in range(0, len(STATES), IN_ONE_HOUSE):
        numbers = STATES[first : first + IN_ONE_HOUSE]
        for seen in await seen_in_one_house(tmp_path_factory.mktemp("house"), numbers):
            disagreement, number = difference(seen), seen.state.number
            again = f"EXPLAIN_SEED={SEED} EXPLAIN_STATES={number}-{number + 1}"
            assert disagreement is None, f"{again}: {disagreement}\n{seen}"
            occurred.update(kinds(seen))

    if len(STATES) >= 1000:
        assert min(occurred.values()) >= 10, occurred
        assert len(occurred) == 21, dict(occurred)
