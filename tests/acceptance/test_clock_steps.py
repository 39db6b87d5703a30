"""The wall clock is set while a daemon runs: noticed, nothing runs twice, no instant goes without its row."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import wall_clock
from support.accounts import PROMPT, asked_once_each, each_has_one, lines, started_since
from support.wall_clock import NotThere, WallClock
from support.workplace import DaemonProcess, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=n) for n in (1, 60, 3600, 86400))
TEN_YEARS = 3652 * DAY
EVERY = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY}
CONFIG = """
timezone: UTC
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
defaults: {{catch_up: {catch_up}}}
jobs:
  - {{name: second, schedule: every 1s, prompt: "{prompt}"}}
  - {{name: minute, schedule: "* * * * *", prompt: "{prompt}"}}
  - {{name: hour, schedule: "0 * * * *", prompt: "{prompt}"}}
  - {{name: day, schedule: "0 0 * * *", prompt: "{prompt}"}}
"""
RETRIED = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
jobs:
  - {{name: patient, schedule: every 1s, prompt: Are you there?, max_runs: 1,
     retry: {{max: 1, delays: [4s], "on": [bad_request]}}}}
"""
DELIVERED = """
model: {{provider: custom, base_url: "{url}", model: small, api_key: no-key-required}}
delivery: {{lost: {{command: ["false"]}}}}
jobs: [{{name: told, schedule: every 1s, max_runs: 1, prompt: Are you there?, deliver: lost}}]
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return wall_clock.library_in(tmp_path_factory.mktemp("wall-clock"))
    except NotThere as why:
        pytest.skip(str(why))


@pytest.fixture
def wall(library: Path, workplace: Workplace) -> WallClock:
    """The clock of every process of the workplace."""
    made = WallClock(library, workplace.directory / "wall-clock")
    workplace.environ |= made.environ
    return made


def configure(workplace: Workplace, provider: ThreadedLoopback, *, catch_up: str = "latest") -> None:
    workplace.configure(CONFIG.format(url=provider.base_url, prompt=PROMPT, catch_up=catch_up))


def said(daemon: DaemonProcess, *words: str) -> None:
    """Wait until the daemon has logged all of these: within one wait of it, and not of a job."""
    eventually(lambda: all(word in daemon.log.read_text("utf-8") for word in words))


def nothing_begins(workplace: Workplace, provider: ThreadedLoopback, seconds: float) -> bool:
    """Say whether for so long neither the ledger grew nor the provider was asked."""

    def seen() -> tuple[object, int]:
        return workplace.rows("SELECT count(*) AS n, max(id) AS id FROM runs"), len(provider.requests)

    eventually(lambda: not workplace.rows("SELECT id FROM runs WHERE finished_at IS NULL"))
    before, until = seen(), time.monotonic() + seconds
    while time.monotonic() < until and seen() == before:
        time.sleep(0.1)
    return seen() == before


@pytest.mark.parametrize("step", [HOUR, TEN_YEARS], ids=["an hour", "ten years"])
def test_a_clock_set_forward_and_back_again_starts_nothing_twice_and_leaves_nothing_out(
    workplace: Workplace, primary: ThreadedLoopback, wall: WallClock, step: timedelta
) -> None:
    """What is jumped over obeys `catch_up`; behind what is decided the daemon waits, and says for what."""
    configure(workplace, primary)
    begun_at = time.monotonic()

    with workplace.daemon() as daemon:
        started_since(workplace, "second", wall.now() - SECOND)
        wall.step(step)
        ahead = wall.now()
        said(daemon, "the clock was set forward by")
        started_since(workplace, "second", ahead)
        wall.step(-step)
        said(daemon, "the clock was set back by", "behind what has been decided already")
        idle = nothing_begins(workplace, primary, 2.5)
        alive = daemon.get("/healthz")[0]
        waits_for = workplace.json("job", "next", "second", "-n", "1")[0]
        wall.step(step)
        again = started_since(workplace, "second", wall.now())
        daemon.stop()

    assert idle
    assert alive == 200
    assert datetime.fromisoformat(waits_for["scheduled_for"]) > ahead
    assert again
    found = {
        job: each_has_one(workplace, job, every) for job, every in EVERY.items() if lines(workplace, job)
    }
    assert {"second", "minute", "hour"} <= set(found)
    for job in ("minute", "hour"):
        assert [line for line in found[job] if line.trigger == "catch_up" and line.state == "succeeded"], job
    assert asked_once_each(primary, workplace) < 60 + time.monotonic() - begun_at
    assert workplace.run("audit").code == 0


def test_a_machine_that_begins_with_a_clock_of_the_past_goes_on_when_it_is_set_right(
    workplace: Workplace, primary: ThreadedLoopback, wall: WallClock
) -> None:
    """As one without a battery does: what fell due while it was off is caught up, though a daemon is up."""
    configure(workplace, primary)
    with workplace.daemon() as daemon:
        started_since(workplace, "second", wall.now() - SECOND)
        daemon.stop()
    last = lines(workplace, "second")[-1].last

    wall.step(-TEN_YEARS)
    with workplace.daemon() as daemon:
        said(daemon, "behind what has been decided already")
        idle = nothing_begins(workplace, primary, 1.5)
        wall.step(TEN_YEARS)
        said(daemon, "the clock was set forward by")
        started_since(workplace, "second", wall.now())
        daemon.stop()

    assert idle
    found = each_has_one(workplace, "second", SECOND)
    assert [line for line in found if line.last > last and line.trigger == "catch_up"]
    asked_once_each(primary, workplace)
    assert workplace.run("audit").code == 0


def test_a_delivery_that_waits_is_not_kept_waiting_by_a_clock_that_is_set_back(
    workplace: Workplace, primary: ThreadedLoopback, wall: WallClock
) -> None:
    """It waits ten seconds after its first failure, and not an hour."""
    workplace.configure(DELIVERED.format(url=primary.base_url))
    wall.step(HOUR)

    with workplace.daemon() as daemon:
        eventually(lambda: workplace.rows("SELECT id FROM deliveries WHERE failures = 1") or None)
        wall.step(-HOUR)
        said(daemon, "deliveries that waited for a time which a wrong clock had set: 1")
        (row,) = workplace.rows("SELECT next_attempt_at FROM deliveries")
        daemon.stop()

    again_at = datetime.fromisoformat(row["next_attempt_at"]).replace(tzinfo=UTC)
    assert again_at - wall.now() < HOUR / 2


def test_a_try_that_waits_is_not_kept_waiting_by_a_clock_that_is_set_back(
    workplace: Workplace, primary: ThreadedLoopback, wall: WallClock
) -> None:
    primary.script(Endpoint.CHAT, Reply.error(400), Reply.text("good again"))
    workplace.configure(RETRIED.format(url=primary.base_url))

    with workplace.daemon() as daemon:
        eventually(lambda: workplace.rows("SELECT id FROM runs WHERE not_before IS NOT NULL") or None)
        assert daemon.get("/healthz")[0] == 200, "its loop has turned: the try waits there by now"
        wall.step(-TEN_YEARS)
        (run,) = eventually(
            lambda: workplace.rows("SELECT state, tries FROM runs WHERE finished_at IS NOT NULL") or None
        )
        daemon.stop()

    assert run == {"state": "succeeded", "tries": 2}
