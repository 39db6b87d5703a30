"""Logins in the database: encrypted, and readable again after `secret_key` was rotated."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.house import SECRET_KEY, keyed, logged_in, open_house

from jobs.errors import ErrorClass
from jobs.mark import Status
from jobs.providers.call import ChainExhausted
from jobs.providers.loopback import Loopback
from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.rows import ProviderRow

pytestmark = pytest.mark.anyio
NEW_KEY = "a newer key of fingerprints and tokens"


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """Yield a provider."""
    async with Loopback(single_use=True) as server:
        yield server


def providers_of(server: Loopback) -> dict[str, ProviderRow]:
    """Return a provider with a login, and one with two keys."""
    return {
        "login": logged_in(server.base_url, server.token_url),
        "pair": keyed(server.base_url, "FIRST", "SECOND"),
    }


def content_of(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory with its bytes."""
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_no_token_and_no_key_stands_readable_in_any_file(tmp_path: Path, server: Loopback) -> None:
    """Neither before nor after a refresh, in the database, its log or its index."""
    server.script(Endpoint.TOKEN, Reply.tokens(access_token="marker-new", refresh_token="marker-newer"))
    server.script(Endpoint.CHAT, Reply.error(401, message="who is marker-access?"), key="marker-access")
    async with open_house(tmp_path, providers_of(server), environ={"FIRST": "marker-key"}) as house:
        await house.log_in("login", access="marker-access", refresh="marker-refresh")
        await house.complete(house.target("login"))
        await house.complete(house.target("pair"))

        content = content_of(tmp_path)

    assert len(server.received(Endpoint.TOKEN)) == 1
    assert any(content.values())
    assert [name for name, found in content.items() if b"marker" in found] == []


async def test_a_rotated_key_still_reads_old_logins_and_seals_new_ones_itself(
    tmp_path: Path, server: Loopback
) -> None:
    """`secret_key` is a list: the first writes, the others read."""
    async with open_house(tmp_path, providers_of(server)) as house:
        await house.log_in("login")
    async with open_house(tmp_path, providers_of(server), secret_keys=(NEW_KEY, SECRET_KEY)) as house:
        await house.complete(house.target("login"))
        server.script(Endpoint.CHAT, Reply.error(401), key="access-0")
        await house.complete(house.target("login"))
    async with open_house(tmp_path, providers_of(server), secret_keys=(NEW_KEY,)) as house:
        await house.complete(house.target("login"))

    used = [one.key for one in server.received(Endpoint.CHAT)]
    assert used[0] == used[1] == "access-0"
    assert used[2] == used[3] != "access-0"


async def test_a_lost_key_is_told_with_its_two_mends(tmp_path: Path, server: Loopback) -> None:
    """The login is unreadable, which is no reason to forget it."""
    async with open_house(tmp_path, providers_of(server)) as house:
        await house.log_in("login")
    async with open_house(tmp_path, providers_of(server), secret_keys=(NEW_KEY,)) as house:
        with pytest.raises(ChainExhausted, match="put that key back, or log in again") as exhausted:
            await house.complete(house.target("login"))

    assert exhausted.value.error_class is ErrorClass.CONFIG_ERROR


async def test_rotating_the_key_forgives_nothing(tmp_path: Path, server: Loopback) -> None:
    """A fingerprint under the old key is written anew under the new one, with its marks."""
    server.script(Endpoint.CHAT, Reply.error(401, code="account_deactivated"), key="secret-of-FIRST")
    async with open_house(tmp_path, providers_of(server)) as house:
        await house.complete(house.target("pair"))
        (before,) = await house.marks()
    async with open_house(tmp_path, providers_of(server), secret_keys=(NEW_KEY, SECRET_KEY)) as house:
        await house.complete(house.target("pair"))
        (after,) = await house.marks()

    assert after.status is Status.DEAD
    assert after.fingerprint != before.fingerprint
    assert [one.key for one in server.received()] == [
        "secret-of-FIRST",
        "secret-of-SECOND",
        "secret-of-SECOND",
    ]


async def test_a_changed_key_is_tried_at_once(tmp_path: Path, server: Loopback) -> None:
    """The fingerprint says that it is another one: nobody has to reset anything."""
    server.script(Endpoint.CHAT, Reply.error(401, code="account_deactivated"), key="secret-of-FIRST")
    async with open_house(tmp_path, providers_of(server)) as house:
        await house.complete(house.target("pair"))
        house.environ["FIRST"] = "a better one"
        await house.complete(house.target("pair"))
        house.environ["FIRST"] = "secret-of-FIRST"
        await house.complete(house.target("pair"))

    used = [one.key for one in server.received()]
    assert used == ["secret-of-FIRST", "secret-of-SECOND", "a better one", "secret-of-SECOND"]


async def test_two_references_to_one_secret_are_one_credential(tmp_path: Path, server: Loopback) -> None:
    """The first label wins: a refused key is not tried again under another name."""
    server.script(Endpoint.CHAT, Reply.error(401))
    environ = {"FIRST": "the same", "SECOND": "the same"}
    async with open_house(tmp_path, providers_of(server), environ=environ) as house:
        with pytest.raises(ChainExhausted):
            await house.complete(house.target("pair"))

        assert [row.credential for row in await house.attempts()] == ["FIRST"]
