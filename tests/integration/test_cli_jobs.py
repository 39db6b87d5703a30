"""`promptd job list`, `show` and `next`, and `promptd status`, with and without a database."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from test_cli_ground import CONFIG, World

from jobs import clock
from jobs.errors import ErrorClass
from jobs.run import Outcome
from jobs.store import instances, runs
from jobs.store.attempts import Failure
from jobs.store.tables import jobs


def test_list_tells_how_every_job_stands(tmp_path: Path) -> None:
    """Definition from the files, the rest from the database."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.see_jobs(connection)
        run = world.begin(connection, "tick")
        runs.finish(connection, run, Outcome.failed(ErrorClass.TIMEOUT, "late"), now=world.now)
        connection.execute(
            update(jobs).where(jobs.c.name == "digest").values(paused_at=world.now, pause_reason="holiday")
        )
        later = world.now + timedelta(hours=1)
        connection.execute(update(jobs).where(jobs.c.name == "tick").values(held_until=later))
    listed = {job["name"]: job for job in world.json("job-list", "job", "list")}
    assert listed["tick"]["last_run"]["state"] == "failed"
    assert listed["tick"]["held_until"] is not None
    assert (listed["digest"]["paused"], listed["digest"]["pause_reason"]) == (True, "holiday")
    assert (listed["digest"]["next_run_at"], listed["off"]["next_run_at"]) == (None, None)
    assert listed["by-hand"]["schedule"] is None
    assert "paused: holiday" in world.run("job", "list").out


def test_show_adds_the_chain_and_the_prompt(tmp_path: Path) -> None:
    """One job, whole."""
    world = World(tmp_path)
    shown = world.json("job-show", "job", "show", "digest")
    assert [target["provider"] for target in shown["chain"]] == ["openai-codex", "zai", "custom:house"]
    assert "hello {{ job }}" in world.run("job", "show", "digest").out
    assert "did you mean digest?" in world.run("job", "show", "digst").err


def test_next_needs_no_database_and_makes_none(tmp_path: Path) -> None:
    """Due times are a matter of the files."""
    world = World(tmp_path, migrated=False)
    due = world.json("job-next", "job", "next", "digest", "-n", "3")
    assert [row["job"] for row in due] == ["digest"] * 3
    assert all(row["local"][11:19] == "07:00:00" for row in due)
    assert not (tmp_path / "state").exists()


def test_next_counts_an_interval_from_the_jobs_first_sight(tmp_path: Path) -> None:
    """A restart does not shift it."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.see_jobs(connection)
    first, second = world.json("job-next", "job", "next", "tick", "-n", "2")
    times = [datetime.fromisoformat(row["scheduled_for"]) for row in (first, second)]
    origin = world.now.replace(microsecond=0)
    assert [(time - origin) % timedelta(seconds=90) for time in times] == [timedelta(0)] * 2


def test_next_of_all_jobs_is_one_list_in_order_of_time(tmp_path: Path) -> None:
    """Disabled jobs and jobs run by hand are never in it."""
    due = World(tmp_path).json("job-next", "job", "next", "-n", "20")
    assert [row["scheduled_for"] for row in due] == sorted(row["scheduled_for"] for row in due)
    assert {row["job"] for row in due} <= {"tick", "digest"}
    assert len(due) == 20


def test_next_says_that_a_paused_job_will_be_skipped(tmp_path: Path) -> None:
    """A pause is in the database, and told beside the time."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.see_jobs(connection)
        connection.execute(update(jobs).where(jobs.c.name == "digest").values(paused_at=world.now))
    (row,) = world.json("job-next", "job", "next", "digest", "-n", "1")
    assert row["note"] == "paused: will be skipped"


def test_next_of_a_disabled_job_is_empty_and_says_why(tmp_path: Path) -> None:
    """The list is data; the reason goes to standard error."""
    said = World(tmp_path).run("job", "next", "off", "--json")
    assert (said.code, said.out.strip()) == (0, "[]")
    assert "off is disabled" in said.err


def test_status_without_a_daemon_says_so(tmp_path: Path) -> None:
    """Exit code 0: it is an answer."""
    world = World(tmp_path, migrated=False)
    assert world.json("status", "status")["daemon"] is None
    assert "not running; start it with `promptd start`" in world.run("status").out
    assert not (tmp_path / "state").exists()


HELD = {"held_by": 1, "hold_key": "zai/main", "hold_reason": "every target is closed"}


def test_status_tells_daemon_runs_and_what_is_closed_or_held(tmp_path: Path) -> None:
    """Everything an operator looks for first, in one go."""
    world = World(tmp_path)
    with world.ledger() as connection:
        world.see_jobs(connection)
        instances.register(connection, kind="daemon", version="1", now=clock.utcnow())
        run = world.begin(connection)
        world.fail(connection, run, Failure(ErrorClass.QUOTA_WINDOW, "r", "used up", http_status=429))
        later = world.now + timedelta(hours=1)
        held = {**HELD, "held_until": later, "probed_at": world.now}
        connection.execute(update(jobs).where(jobs.c.name == "tick").values(held))
        connection.execute(update(jobs).where(jobs.c.name == "digest").values(paused_at=world.now))
    shown = world.json("status", "status")
    assert shown["daemon"]["fresh"] is True
    assert [run["job"] for run in shown["open_runs"]] == ["digest"]
    assert {(row["label"], row["scope"]) for row in shown["closed_credentials"]} == {
        ("main", "credential"),
        ("main", "group"),
    }
    assert [row["provider"] for row in shown["unreadable_credentials"]] == ["openai-codex"]
    assert [row["job"] for row in shown["paused_jobs"]] == ["digest"]
    assert [row["job"] for row in shown["held_jobs"]] == ["tick"]
    assert "running for" in world.run("status").out


@pytest.mark.parametrize("count", ["0", "ten", "-3"])
def test_a_count_that_is_none_is_a_usage_error(tmp_path: Path, count: str) -> None:
    """`-n` wants a number from 1."""
    assert World(tmp_path, migrated=False, config=CONFIG).run("job", "next", "-n", count).code == 2


def test_the_command_of_a_dry_run_finds_no_secret_of_a_delivery(tmp_path: Path) -> None:
    """What it prints would stand in the prompt."""
    config = (
        f"{CONFIG}  - name: a\n    schedule: null\n    prompt: '{{{{ gathered }}}}'\n"
        "    heartbeat: env:BEAT\n    gather: {shell: true, command: 'echo =$HOOK$BEAT'}\n"
        "delivery: {hook: {webhook: env:HOOK}}\n"
    )
    environ = {"HOOK": "https://example.org/in", "BEAT": "https://hc.example/a"}
    world = World(tmp_path, config=config, environ=environ, migrated=False)

    assert world.run("job", "run", "a", "--dry-run", "--gather").out == "=\n\n"
