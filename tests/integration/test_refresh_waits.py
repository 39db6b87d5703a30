"""A refresh that another is about already: what comes of waiting for it, and of waiting in vain."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from support.claiming import HOURLY
from support.house import House, open_house
from support.ledger import HOUR
from test_oauth import EXPIRED, providers_of, refreshes

from jobs import clock
from jobs.attempt import Purpose, Step
from jobs.credential import Readable
from jobs.errors import ErrorClass
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.pool import Habits
from jobs.providers.settle import record_unsent
from jobs.store import holds
from jobs.store import jobs as job_verbs
from jobs.store.attempts import Failure, Place
from jobs.store.tables import jobs

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider whose refresh tokens can be used once."""
    async with Loopback(single_use=True, revoke_on_reuse=True) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house that has a login there."""
    async with open_house(tmp_path, providers_of(server)) as house:
        yield house


def held_by_the_login(connection: Connection) -> None:
    """Hold a job for an hour, since its only login is closed."""
    later = clock.utcnow() + HOUR
    job_verbs.see(connection, {"digest": HOURLY}, now=clock.utcnow())
    values = {"hold_key": "login/login", "held_until": later, "opens_at": later}
    connection.execute(update(jobs).values(values))


async def test_who_waits_for_the_refresh_of_another_in_vain_says_so_and_goes_on(
    house: House, server: Loopback, tmp_path: Path
) -> None:
    """Else the ledger would not say why the first target was left."""
    await house.log_in("login", left=EXPIRED)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="refresh-1").held())

    async with open_house(tmp_path, providers_of(server)) as other:
        elsewhere = asyncio.create_task(other.complete(other.target("login"), within=300))
        await server.wait_received(1, endpoint=Endpoint.TOKEN)
        await house.complete(house.target("login"), house.target("backup"), within=8)
        _sent, waited, answered = await house.attempts()
        (closed,) = await house.marks()
        await house.store.write(held_by_the_login)
        server.let_go()
        await elsewhere
        held = await house.store.read(holds.held)

    assert closed.error_class == "auth_unavailable"
    assert await house.marks() == [], "the token that came disproves it"
    assert held["digest"].opens_at is None, "and so lets go whom it held"
    assert (waited.target_index, waited.purpose, waited.error_class) == (0, "refresh", "auth_unavailable")
    assert "another process is refreshing" in waited.message
    assert (answered.target_index, answered.outcome) == (1, "succeeded")
    assert refreshes(server) == ["refresh-0"]


async def test_a_wait_in_vain_closes_no_login_that_has_a_newer_token_by_then(house: House) -> None:
    """It may be stored between the last look at the lease and the row that tells of the wait."""
    await house.log_in("login", left=EXPIRED)
    target, services = house.target("login"), house.services
    provider = services.registry.provider(target.provider)
    unsent = partial(
        record_unsent,
        vault=services.vault,
        provider=provider,
        target=target,
        place=Place(None, 1, Purpose.MAIN, 0),
        failure=Failure(ErrorClass.AUTH_UNAVAILABLE, "*/unanswerable", "in vain"),
        onward=Step.STOP,
        habits=Habits(),
        now=clock.utcnow(),
    )

    def read(connection: Connection) -> Readable:
        (found,) = services.vault.open(connection, provider, now=clock.utcnow())
        assert isinstance(found, Readable)
        return found

    readable = await house.store.read(read)
    await house.log_in("login", access="newer", generation=1)
    renewed = await house.store.write(lambda connection: unsent(connection, readable=readable))
    readable = await house.store.read(read)
    as_it_was = await house.store.write(lambda connection: unsent(connection, readable=readable))

    assert renewed.mark is None
    assert as_it_was.mark is not None
    assert [row.error_class for row in await house.attempts()] == ["auth_unavailable"] * 2
