"""Logins are refreshed before a run needs them, as work of its own, and their end is warned of once."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from sqlalchemy import Connection, update
from support.hang_guard import wait_ends
from support.hostile import held, said
from support.house import House, keyed, logged_in, open_house
from support.http_peer import HttpPeer, answer

from jobs import clock
from jobs.events import GrantEnding, RefreshSettled
from jobs.mark import Status
from jobs.providers.early_refresh import LOOK_EVERY, EarlyRefresh
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.rows import ProviderRow
from jobs.store import tokens
from jobs.store.tables import tokens as token_table

pytestmark = pytest.mark.anyio
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SOON, LATER = 4 * MINUTE, 20 * MINUTE


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider whose refresh tokens can be used once."""
    async with Loopback(single_use=True, revoke_on_reuse=True) as server:
        yield server


def providers_of(server: Loopback, *, token_url: str | None = None) -> dict[str, ProviderRow]:
    """Return a provider with a login, and one with a key."""
    return {
        "login": logged_in(server.base_url, token_url or server.token_url),
        "backup": keyed(f"{server.origin}/backup/v1", "BACKUP"),
    }


@pytest.fixture
async def house(tmp_path: Path, server: Loopback) -> AsyncIterator[House]:
    """Yield a house that knows both."""
    async with open_house(tmp_path, providers_of(server)) as house:
        yield house


def early(house: House, *providers: str) -> EarlyRefresh:
    """Return what the daemon runs, for the logins of these providers."""
    return EarlyRefresh(house.services, [house.target(name) for name in providers or ("login", "backup")])


def sent(server: Loopback) -> list[str | None]:
    """Return the refresh tokens that were sent, in order."""
    return [one.key for one in server.received(Endpoint.TOKEN)]


async def test_a_login_near_its_end_is_refreshed_without_a_run(house: House, server: Loopback) -> None:
    """Its attempt stands in the ledger, of no run."""
    await house.log_in("login", left=SOON)

    await early(house).look()

    assert sent(server) == ["refresh-0"]
    login = await house.login("login")
    assert (login.generation, login.spent_by, login.lease_owner) == (1, None, None)
    (attempt,) = await house.attempts()
    assert (attempt.purpose, attempt.run_id, attempt.outcome) == ("refresh", None, "succeeded")
    assert attempt.base_url == server.token_url
    assert RefreshSettled("login", "login", "succeeded") in house.events
    assert server.received(Endpoint.CHAT) == []


async def test_the_run_after_it_finds_a_fresh_token(house: House, server: Loopback) -> None:
    await house.log_in("login", left=SOON)
    await early(house).look()

    await house.complete(house.target("login"))

    assert sent(server) == ["refresh-0"]
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["access-1"]


async def test_nothing_is_sent_before_it_is_time_and_the_next_look_is_soon_enough(
    house: House, server: Loopback
) -> None:
    await house.log_in("login", left=LATER)
    assert await early(house).look() == LOOK_EVERY

    await house.log_in("login", lifetime=timedelta(seconds=100), left=timedelta(seconds=25), generation=1)
    pause = await early(house).look()

    assert timedelta(seconds=1) < pause < timedelta(seconds=16)
    assert sent(server) == []


async def test_a_login_that_has_ended_is_left_to_the_run_that_needs_it(
    house: House, server: Loopback
) -> None:
    """So that its refusal stands in that run, with the fallback that it led to."""
    await house.log_in("login", left=-MINUTE)
    await early(house).look()
    assert sent(server) == []


async def test_only_logins_that_a_chain_names_are_refreshed(house: House, server: Loopback) -> None:
    await house.log_in("login", left=SOON)
    await early(house, "backup").look()
    assert sent(server) == []


async def test_trouble_that_nobody_foresaw_is_told_and_does_not_end_the_watch(
    house: House, server: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    """The store is closed beneath it: that is no error of a database."""
    await asyncio.to_thread(house.store.close)
    watch = asyncio.create_task(early(house).watch())
    async with wait_ends():
        while "logins could not be looked after" not in caplog.text:
            assert not watch.done(), watch.exception()
            await asyncio.sleep(0.01)

    assert not watch.done()
    watch.cancel()


async def test_a_refused_refresh_marks_the_login_and_is_not_repeated(house: House, server: Loopback) -> None:
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, Reply.token_error(400, "invalid_grant"))
    work = early(house)

    for _ in range(3):
        await work.look()

    assert sent(server) == ["refresh-0"]
    (mark,) = await house.marks()
    (attempt,) = await house.attempts()
    assert (mark.status, mark.code, mark.attempt_id) == (Status.DEAD, "invalid_grant", attempt.id)
    assert (attempt.error_class, attempt.recovery) == ("auth_dead", "stop")


@pytest.mark.parametrize("reply", [Reply.raw(503), Reply.error(429)], ids=["503", "429"])
async def test_an_endpoint_out_of_order_closes_nothing_while_the_token_is_valid(
    house: House, server: Loopback, reply: Reply
) -> None:
    """It is asked again after a minute, not at the next look."""
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, reply)
    work = early(house)

    for _ in range(3):
        pause = await work.look()
    await house.complete(house.target("login"))

    assert sent(server) == ["refresh-0", "refresh-0"], "one early, one by the run"
    assert timedelta(seconds=20) < pause <= LOOK_EVERY
    assert await house.marks() == []
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["access-0"]


async def test_a_lost_answer_is_never_asked_for_again(house: House, server: Loopback) -> None:
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="r1").cut(10))

    for _ in range(2):
        await early(house).look()

    assert sent(server) == ["refresh-0"]
    assert (await house.login("login")).spent_by is not None


async def test_a_gateway_that_waited_in_vain_has_lost_the_answer(house: House, server: Loopback) -> None:
    """504: the endpoint behind it may have exchanged the token."""
    await house.log_in("login", left=-MINUTE)
    server.script(Endpoint.TOKEN, Reply.raw(504))

    await house.complete(house.target("login"), house.target("backup"))

    assert (await house.login("login")).spent_by is not None


async def test_daemons_and_runs_that_are_due_together_send_one_refresh(
    house: House, server: Loopback, tmp_path: Path
) -> None:
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="new", refresh_token="refresh-1").after(0.3))

    async with open_house(tmp_path, providers_of(server)) as other:
        work = (early(house).look(), early(other).look(), other.complete(other.target("login")))
        await asyncio.gather(*work)

    assert sent(server) == ["refresh-0"]
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["new"]


async def test_a_login_stored_after_a_slow_refresh_began_is_not_overwritten(
    house: House, server: Loopback
) -> None:
    await house.log_in("login", left=SOON)
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="late", refresh_token="late").held())
    looking = asyncio.create_task(early(house).look())
    await server.wait_received(1, endpoint=Endpoint.TOKEN)

    await house.log_in("login", access="newest", login_id="login-2")
    server.let_go()
    await looking

    assert (await house.login("login")).login_id == "login-2"
    await house.complete(house.target("login"))
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["newest"]


class SlowEndpoint:
    """A token endpoint that answers once it may; `sent` are the refresh tokens it was sent."""

    def __init__(self, access: str, refresh: str) -> None:
        new = json.dumps({"access_token": access, "refresh_token": refresh}).encode()
        self.may_answer = asyncio.Event()
        self.peer = HttpPeer(held(self.may_answer, said(answer(200, body=new))))

    @property
    def sent(self) -> list[str]:
        return [token for one in self.peer.taken for token in parse_qs(one.body.decode())["refresh_token"]]

    async def is_asked(self) -> None:
        async with wait_ends():
            while not self.peer.taken:
                await asyncio.sleep(0.01)


async def test_a_slow_refresh_that_was_given_up_as_lost_lifts_the_death_when_it_answers(
    server: Loopback, tmp_path: Path
) -> None:
    """Its process stood still past its lease: the token it brings is good, and proves the mark wrong."""
    endpoint = SlowEndpoint("late", "later")
    async with endpoint.peer as peer:
        providers = providers_of(server, token_url=peer.url())
        async with open_house(tmp_path, providers) as house, open_house(tmp_path, providers) as other:
            await house.log_in("login", left=-MINUTE)
            slow = asyncio.create_task(house.complete(house.target("login"), within=600))
            await endpoint.is_asked()
            await house.store.write(lease_ends)

            fallen_back = await other.complete(other.target("login"), other.target("backup"))
            (dead,) = await other.marks()
            endpoint.may_answer.set()
            await slow

            assert (fallen_back.fallback_reason, dead.status) == ("auth_dead", Status.DEAD)
            assert endpoint.sent == ["refresh-0"]
            assert await house.marks() == []
            assert (await house.login("login")).generation == 1


def lease_ends(connection: Connection) -> None:
    """Let the time of every lease be over."""
    connection.execute(update(token_table).values(lease_until=clock.utcnow() - MINUTE))


async def ending(house: House, *, in_: timedelta, login_id: str = "login-1") -> None:
    """Store a login of 60 days, of which so much is left."""
    await house.log_in("login", lifetime=59 * DAY, left=30 * DAY, login_id=login_id)
    login = replace(await house.login("login"), grant_ends_at=clock.utcnow() + in_)
    await house.store.write(tokens.save_login, login)


def warnings(house: House) -> list[GrantEnding]:
    """Return what was warned of."""
    return [event for event in house.events if isinstance(event, GrantEnding)]


async def test_the_end_of_a_grant_is_warned_of_once_whatever_restarts(
    house: House, server: Loopback, tmp_path: Path
) -> None:
    await ending(house, in_=2 * DAY)
    end = (await house.login("login")).grant_ends_at
    assert end is not None

    await early(house).look()
    await early(house).look()
    async with open_house(tmp_path, providers_of(server)) as restarted:
        await early(restarted).look()
        assert warnings(restarted) == []

    assert warnings(house) == [GrantEnding("login", "login", end)]
    assert sent(server) == []


async def test_a_grant_with_time_left_is_not_warned_of_and_a_new_login_is_warned_of_anew(
    house: House,
) -> None:
    await ending(house, in_=20 * DAY)
    await early(house).look()
    assert warnings(house) == []

    for login_id in ("login-2", "login-3"):
        await ending(house, in_=DAY, login_id=login_id)
        await early(house).look()
    assert len(warnings(house)) == 2


async def test_what_a_token_endpoint_says_of_the_grants_end_is_kept(house: House, server: Loopback) -> None:
    """Also over a refresh that says nothing of it; a new end is warned of anew."""
    told = {"access_token": "a", "refresh_token": "r1", "expires_in": 60, "refresh_token_expires_in": 600}
    untold = {"access_token": "b", "refresh_token": "r2", "expires_in": 3600}
    server.script(Endpoint.TOKEN, Reply.json(200, told), Reply.json(200, untold))
    await house.log_in("login", left=SOON)
    await early(house).look()
    first = await house.login("login")
    assert first.grant_ends_at == first.issued_at + 10 * MINUTE

    await house.store.write(tokens.note_warning, first, now=clock.utcnow())
    await house.store.write(life_passes)
    await house.complete(house.target("login"))

    second = await house.login("login")
    assert (second.generation, second.grant_ends_at) == (2, first.grant_ends_at)
    assert second.grant_warned_at is not None


def life_passes(connection: Connection) -> None:
    """Let every access token end."""
    connection.execute(update(token_table).values(expires_at=clock.utcnow() - MINUTE))


async def test_a_new_token_outlasts_a_database_that_takes_no_write_for_a_while(
    server: Loopback, tmp_path: Path
) -> None:
    """It is paid for with the old one: it waits in memory, and is used once it is stored."""
    endpoint, path = SlowEndpoint("new", "r1"), tmp_path / "promptd.db"
    async with (
        endpoint.peer as peer,
        open_house(tmp_path, providers_of(server, token_url=peer.url())) as house,
    ):
        await house.log_in("login", left=-MINUTE)
        asking = asyncio.create_task(house.complete(house.target("login"), within=600))
        await endpoint.is_asked()

        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as locked:
            locked.execute("BEGIN IMMEDIATE")
            endpoint.may_answer.set()
            async with wait_ends():
                while house.store.refused is None:
                    await asyncio.sleep(0.05)
            assert not asking.done()
            assert server.received(Endpoint.CHAT) == []
            locked.execute("ROLLBACK")
        await asking

    assert endpoint.sent == ["refresh-0"]
    assert [one.key for one in server.received(Endpoint.CHAT)] == ["new"]
