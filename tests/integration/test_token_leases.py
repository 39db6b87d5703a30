"""Who may refresh a login: one at a time, and nobody waits for a process that is gone."""

import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy import Connection
from support.ledger import MINUTE, NOW, key_of

from jobs.store import credentials, tokens
from jobs.store.instances import process_start
from jobs.store.tokens import SealedTokens

LOGIN = key_of("login", provider="plan")
SEALED = SealedTokens("plan", "login", "login-1", 1, b"a", b"r", "app", None, NOW, NOW)


@pytest.fixture
def login(db: Connection) -> Connection:
    """A database with a login in it."""
    credentials.ensure(db, LOGIN, ("login-1",), now=NOW)
    tokens.save_login(db, SEALED)
    return db


def taken(db: Connection, owner: str, *, after: timedelta = timedelta(0)) -> bool:
    """Try to become the refresher for a minute; say whether that worked."""
    now = NOW + after
    return tokens.take_lease(db, LOGIN, owner=owner, now=now, until=now + MINUTE) is not None


def owner_of(pid: int, started: str, host: str = "") -> str:
    """Return the name that a refresher of some process has."""
    return f"{host or socket.gethostname()} {pid} {started} 0123"


def test_a_lease_is_one_refreshers_until_it_is_let_go_or_over(login: Connection) -> None:
    mine, other = tokens.new_owner(), tokens.new_owner()
    assert taken(login, mine)
    assert not taken(login, other), "of the same process, but another refresh"
    assert taken(login, mine)
    tokens.release_lease(login, LOGIN, owner=other)
    assert not taken(login, other), "only its owner lets it go"
    tokens.release_lease(login, LOGIN, owner=mine)
    assert taken(login, other)
    assert taken(login, mine, after=MINUTE)


def test_the_lease_of_a_dead_process_of_this_host_is_nobodys(login: Connection) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid, process_start(child.pid))
    assert taken(login, owner)
    assert not taken(login, tokens.new_owner()), "it lives"

    child.communicate(b"\n")

    assert taken(login, tokens.new_owner())


def test_a_later_process_with_the_same_id_is_not_its_owner(login: Connection) -> None:
    assert taken(login, owner_of(os.getpid(), "another-boot:1"))
    assert taken(login, tokens.new_owner())


@pytest.mark.parametrize("owner", [owner_of(1, "a:1", host="elsewhere"), "of-an-earlier-version"])
def test_the_lease_of_a_process_that_cannot_be_seen_is_waited_for(login: Connection, owner: str) -> None:
    assert taken(login, owner)
    assert not taken(login, tokens.new_owner())
    assert taken(login, tokens.new_owner(), after=MINUTE)


def test_there_is_no_lease_on_a_login_that_is_gone(login: Connection) -> None:
    assert tokens.forget(login, "plan", "login")
    assert not taken(login, tokens.new_owner())
    assert not tokens.forget(login, "plan", "login")
