"""Two processes need one single-use refresh token at the same moment, again and again: it is sent once."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from support.house import logged_in, open_house

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

ROUNDS = 100
TESTS = Path(__file__).parents[1]
LONG_AGO = "2026-01-01 00:00:00.000000"


async def log_in(directory: Path, server: ThreadedLoopback) -> None:
    """Make the database, with a login in it."""
    async with open_house(directory, {"login": logged_in(server.base_url, server.token_url)}) as house:
        await house.log_in("login")


@contextmanager
def refreshers(
    directory: Path, server: ThreadedLoopback, number: int
) -> "Iterator[list[subprocess.Popen[str]]]":
    """Start processes that share the database, and wait until each is ready."""
    words = [sys.executable, str(TESTS / "support" / "refresher.py"), str(directory)]
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    processes = [
        subprocess.Popen(
            [*words, server.base_url, server.token_url],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    try:
        assert [said(process) for process in processes] == ["ready"] * number
        yield processes
    finally:
        for process in processes:
            process.communicate()
    assert [process.returncode for process in processes] == [0] * number


def said(process: "subprocess.Popen[str]") -> str:
    """Return the next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    """Tell a process to ask."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_send_one_refresh_each_of_a_hundred_times(tmp_path: Path) -> None:
    """A second use would revoke the login, and every round after it would fail."""
    with ThreadedLoopback(single_use=True, revoke_on_reuse=True) as server:
        grant = Reply.tokens(access_token="access-{number}", refresh_token="refresh-{number}").after(0.02)
        server.script(Endpoint.TOKEN, grant)
        asyncio.run(log_in(tmp_path, server))
        outcomes: Counter[tuple[str, ...]] = Counter()
        with refreshers(tmp_path, server, 2) as both, closing(sqlite3.connect(tmp_path / "promptd.db")) as db:
            for number in range(1, ROUNDS + 1):
                with db:
                    db.execute("UPDATE tokens SET issued_at = ?, expires_at = ?", (LONG_AGO, LONG_AGO))
                for process in both:
                    go(process)
                outcomes[tuple(sorted(said(process) for process in both))] += 1
                assert len(server.received(Endpoint.TOKEN)) == number

        sent = server.received(Endpoint.TOKEN)
        asked = server.received(Endpoint.CHAT)

    keys = ["refresh-0", *(f"refresh-{request.number}" for request in sent[:-1])]
    assert [request.key for request in sent] == keys
    assert Counter(request.key for request in asked) == {f"access-{one.number}": 2 for one in sent}
    assert set(outcomes) <= {("adopted", "succeeded"), ("fresh", "succeeded")}
    assert outcomes["adopted", "succeeded"], "both have needed it at once"
