"""When every target is closed for a known time: it is waited for, or else the job is held, and let go."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.workplace import Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

WINDOW = Reply.error(
    429, code="1308", message="Usage limit reached for 5 hour.", headers={"retry-after": "7200"}
)
PROBES = "SELECT * FROM attempts WHERE purpose = 'probe'"


@pytest.fixture
def server() -> Iterator[ThreadedLoopback]:
    """Return the provider of both targets."""
    with ThreadedLoopback() as running:
        yield running


@pytest.fixture
def house(tmp_path: Path, server: ThreadedLoopback) -> Workplace:
    """Return a workplace whose two jobs ask the same two targets every second."""
    made = Workplace(tmp_path, {"FIRST": "first-key", "SECOND": "second-key"})
    made.configure(
        f"""
providers:
  zai: {{base_url: "{server.origin}/a/v1", credentials: [{{label: main, key: "env:FIRST"}}]}}
  other: {{base_url: "{server.origin}/b/v1", credentials: [{{label: main, key: "env:SECOND"}}]}}
model: zai/glm-5.1
fallback_providers: [other/small]
defaults: {{timeout: 60s}}
jobs:
  - {{name: digest, schedule: every 1s, prompt: hello}}
  - {{name: report, schedule: every 1s, prompt: hello}}
  - {{name: rare, schedule: "0 0 1 1 *", prompt: hello}}
"""
    )
    return made


def closed_for_hours(server: ThreadedLoopback) -> None:
    server.script(Endpoint.CHAT, WINDOW, key="first-key")
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "9000"}), key="second-key")


def open_again(server: ThreadedLoopback, text: str) -> None:
    for key in ("first-key", "second-key"):
        server.script(Endpoint.CHAT, Reply.text(text), key=key)


def until(ask: Callable[[], Any]) -> Any:
    """Wait for an answer that is not empty."""
    return eventually(lambda: ask() or None)


def job(house: Workplace, name: str) -> Any:
    return next(each for each in house.json("job", "list") if each["name"] == name)


def skipped(house: Workplace, name: str) -> list[Any]:
    query = "SELECT id FROM runs WHERE job = ? AND state = 'skipped' AND reason = 'held'"
    return house.rows(query, name)


def is_held(house: Workplace, name: str) -> bool:
    return bool(house.rows("SELECT name FROM jobs WHERE name = ? AND held_until IS NOT NULL", name))


def made_up_for(house: Workplace) -> Any:
    """Return the one run of the digest that makes up for those that were lost, and how it has ended."""
    made_up = "SELECT * FROM runs WHERE job = 'digest' AND trigger = 'retry'"
    until(lambda: house.rows(f"{made_up} AND finished_at IS NOT NULL"))
    (run,) = house.rows(made_up)
    return run


def newest_lost(house: Workplace, before: int) -> Any:
    """Return the newest instant of the digest that was lost before a run, with the run that lost it."""
    lost = "trigger IN ('schedule', 'catch_up') AND (state = 'failed' OR reason = 'held')"
    query = f"SELECT * FROM runs WHERE job = 'digest' AND {lost} AND id < ? ORDER BY id DESC LIMIT 1"
    return house.rows(query, before)[0]


def held_until(house: Workplace, name: str) -> Any:
    """Return until when the ledger holds a job, None where it does not."""
    return next((row["held_until"] for row in house.rows("SELECT * FROM jobs WHERE name = ?", name)), None)


def test_a_chain_that_is_closed_for_hours_holds_its_jobs_with_one_alert(
    house: Workplace, server: ThreadedLoopback
) -> None:
    """The run fails with its first target's class; what falls due meanwhile asks nobody."""
    closed_for_hours(server)

    with house.daemon() as daemon:
        first = house.first_runs("digest", "report")
        until(lambda: skipped(house, "digest") and skipped(house, "report"))
        asked = len(server.requests)
        until(lambda: len(skipped(house, "digest")) > 2)
        listed = [job(house, name) for name in ("digest", "report")]
        shown = house.run("status").out
        _, figures = daemon.get("/metrics")
    log = daemon.log.read_text()

    failed = [run for run in first.values() if run["state"] == "failed"]
    assert failed
    assert {run["reason"] for run in failed} == {"quota_window"}
    assert failed[0]["attempts"][-1]["recovery"] == "hold"
    assert len(server.requests) == asked
    for each in listed:
        length = datetime.fromisoformat(each["held_until"]) - datetime.now(UTC)
        assert timedelta(minutes=115) < length < timedelta(minutes=122)
    assert log.count('"first": true') == 1
    assert "HELD" in shown
    assert "promptd_jobs_held 2.0" in figures


def test_a_reset_lets_a_held_job_go_and_one_run_makes_up_for_it(
    house: Workplace, server: ThreadedLoopback
) -> None:
    """The digest of this morning is made as soon as it can be, not tomorrow."""
    closed_for_hours(server)
    house.configure(house.config.read_text().replace("schedule: every 1s", "schedule: every 20s"))

    with house.daemon():
        until(lambda: is_held(house, "digest"))
        open_again(server, "made up")
        assert house.run("auth", "reset", "other").code == 0
        run = made_up_for(house)
        assert held_until(house, "digest") is None

    lost = newest_lost(house, run["id"])
    assert (run["parent_id"], run["scheduled_for"]) == (lost["id"], lost["scheduled_for"])
    served = "SELECT provider FROM attempts WHERE run_id = ? AND outcome = 'succeeded'"
    assert house.rows(served, run["id"]) == [{"provider": "other"}]


def test_after_five_minutes_one_due_run_is_the_probe_that_lets_all_go(
    house: Workplace, server: ThreadedLoopback
) -> None:
    """It asks what is closed for a time; its success opens that for every job."""
    closed_for_hours(server)

    with house.daemon():
        until(lambda: skipped(house, "digest") and skipped(house, "report"))
        asked = len(server.requests)
        open_again(server, "open again")
        long_ago(house, minutes=6)
        probe = until(lambda: house.rows(f"{PROBES} AND outcome = 'succeeded'"))
        until(lambda: not house.rows("SELECT name FROM jobs WHERE held_until IS NOT NULL"))
        house.finished_runs(3, job="digest")

    assert len(probe) == 1
    assert probe[0]["provider"] == "zai"
    assert server.requests[asked].key == "first-key"
    assert "zai" not in {row["provider"] for row in house.rows("SELECT * FROM marks")}


def test_a_probe_that_is_refused_keeps_the_job_held(house: Workplace, server: ThreadedLoopback) -> None:
    """And the next one is five minutes away."""
    closed_for_hours(server)

    with house.daemon():
        until(lambda: skipped(house, "digest") and skipped(house, "report"))
        asked = len(server.requests)
        long_ago(house, minutes=6)
        until(lambda: len(house.rows(f"{PROBES} AND outcome != 'sent'")) == 2)  # one for each target
        until(lambda: not house.rows("SELECT id FROM runs WHERE finished_at IS NULL"))
        before = len(skipped(house, "digest")) + len(skipped(house, "report"))
        until(lambda: len(skipped(house, "digest")) + len(skipped(house, "report")) > before + 3)

    assert len(server.requests) - asked == 2
    assert {row["outcome"] for row in house.rows(PROBES)} == {"failed"}


def test_a_held_job_is_run_by_hand_only_by_force(house: Workplace, server: ThreadedLoopback) -> None:
    closed_for_hours(server)
    failed = house.run("job", "run", "rare")

    held = house.run("job", "run", "rare")
    open_again(server, "by force")
    forced = house.run("job", "run", "rare", "--force")

    assert failed.code == 1
    assert held.code == 75
    assert "--force" in held.err
    assert (forced.code, forced.out) == (0, "by force\n")
    assert house.run("job", "run", "rare").code == 0


def test_an_opening_within_the_deadline_is_waited_for(house: Workplace, server: ThreadedLoopback) -> None:
    """And the attempt says how long, and for what."""
    again = Reply.error(429, headers={"retry-after": "3"})
    server.script(Endpoint.CHAT, Reply.error(429, headers={"retry-after": "9000"}), key="first-key")
    server.script(Endpoint.CHAT, again, again, Reply.text("patience"), key="second-key")

    run = house.ran("job", "run", "rare")

    *_, last = run["attempts"]
    assert (run["state"], run["output"]) == ("succeeded", "patience")
    assert 0 < last["waited"] < 60
    assert last["wait_reason"].startswith("every target is closed; other/small opens first, at ")
    assert [each["recovery"] for each in run["attempts"]][-2:] == ["retry", None]
    assert held_until(house, "rare") is None


def test_a_run_by_hand_says_for_what_it_waits(house: Workplace, server: ThreadedLoopback) -> None:
    """On standard error; the answer alone is on standard output."""
    again = Reply.error(429, headers={"retry-after": "2"})
    for key in ("first-key", "second-key"):
        server.script(Endpoint.CHAT, again, again, Reply.text("patience"), key=key)

    done = house.run("job", "run", "rare")

    assert (done.code, done.out) == (0, "patience\n")
    assert "waiting, " in done.err
    assert "every target is closed" in done.err


def test_a_forced_run_that_fails_takes_nothing_from_what_is_made_up_for(
    house: Workplace, server: ThreadedLoopback
) -> None:
    closed_for_hours(server)
    house.configure(house.config.read_text().replace("schedule: every 1s", "schedule: every 20s"))

    with house.daemon():
        until(lambda: is_held(house, "digest"))
        assert house.run("job", "run", "digest", "--force").code == 1
        open_again(server, "made up")
        assert house.run("auth", "reset", "other").code == 0
        made_up = made_up_for(house)

    assert made_up["parent_id"] == newest_lost(house, made_up["id"])["id"]


def test_a_job_without_a_schedule_is_not_held_after_a_reset(
    house: Workplace, server: ThreadedLoopback
) -> None:
    """Nobody makes anything up for it, and nothing says that it is held."""
    house.configure(house.config.read_text().replace('schedule: "0 0 1 1 *"', "schedule: null"))
    closed_for_hours(server)
    house.run("job", "run", "rare")
    assert held_until(house, "rare") is not None

    house.run("auth", "reset", "zai")
    house.run("auth", "reset", "other")

    assert job(house, "rare")["held_until"] is None
    open_again(server, "at once")
    assert house.run("job", "run", "rare").code == 0
    assert house.rows("SELECT held_until, hold_key FROM jobs WHERE name = 'rare'") == [
        {"held_until": None, "hold_key": None}
    ]


def test_what_only_a_person_can_mend_holds_nothing(house: Workplace, server: ThreadedLoopback) -> None:
    """A wrong key, a missing model: time alone does not open them, so each due run says so."""
    server.script(Endpoint.CHAT, Reply.error(401, code="invalid_api_key"), key="first-key")
    server.script(Endpoint.CHAT, Reply.error(404, code="model_not_found"), key="second-key")

    first, second = house.ran("job", "run", "rare"), house.ran("job", "run", "rare")

    assert (first["state"], first["reason"]) == ("failed", "auth")
    assert second["state"] == "failed"
    assert held_until(house, "rare") is None


def long_ago(house: Workplace, *, minutes: int) -> None:
    """Move the last probe of every held job into the past, as time itself would."""
    with closing(sqlite3.connect(house.database, timeout=30, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET probed_at = datetime(probed_at, ?)", (f"-{minutes} minutes",))
