"""`promptd job next --if-started-now`: what a start would catch up, and nothing started."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from test_cli_ground import World

from jobs.store import jobs as job_verbs
from jobs.store.tables import jobs, runs
from scheduler.config.settings import ScheduledJob

CONFIG = """\
timezone: Europe/Berlin
state_dir: state
model: ollama/m
jobs:
  - {name: latest, schedule: every 1h, prompt: hello}
  - {name: none, schedule: every 1h, prompt: hello, catch_up: none}
  - {name: paused, schedule: every 1h, prompt: hello}
  - {name: held, schedule: every 1h, prompt: hello}
  - {name: off, schedule: every 1h, prompt: hello, enabled: false}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Jobs that a daemon saw ten and a half hours ago, before it went."""
    made = World(tmp_path, config=CONFIG, environ={})
    then = made.now - timedelta(hours=10, minutes=30)
    with made.ledger() as connection:
        job_verbs.see(connection, {name: key(job) for name, job in made.settings.jobs.items()}, now=then)
        job_verbs.pause(connection, "paused", reason=None, now=then)
        later = update(jobs).where(jobs.c.name == "held")
        connection.execute(later.values(held_until=made.now + timedelta(hours=1)))
    return made


def key(job: ScheduledJob) -> str | None:
    return job.timetable.key() if job.enabled and job.timetable else None


def shown(world: World, *words: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = world.json(
        "job-next-if-started-now", "job", "next", "--if-started-now", *words
    )
    return found


def test_what_a_start_would_make_of_what_was_missed_is_shown_and_not_done(world: World) -> None:
    found = [(row["job"], row["state"], row["reason"], row["count"]) for row in shown(world)]

    assert sorted(found, key=str) == [
        ("held", "missed", "coalesced", 9),
        ("held", "skipped", "held", 1),
        ("latest", "missed", "coalesced", 9),
        ("latest", "queued", None, 1),
        ("none", "missed", "catch_up_none", 10),
        ("paused", "skipped", "paused", 10),
    ]
    with world.ledger() as connection:
        assert connection.execute(select(func.count()).select_from(runs)).scalar_one() == 0


def test_one_job_and_so_many_lines_can_be_asked_for(world: World) -> None:
    rows = shown(world, "latest", "-n", "1")

    assert [(row["job"], row["count"]) for row in rows] == [("latest", 9)]
    assert datetime.fromisoformat(rows[0]["first"]) < datetime.fromisoformat(rows[0]["last"])
    said = world.run("job", "next", "--if-started-now", "-n", "1")
    assert (said.code, "5 more: see -n" in said.err) == (0, True)


def test_a_timetable_that_was_changed_while_nobody_watched_owes_nothing(world: World) -> None:
    """As when a daemon starts."""
    world.file.write_text(CONFIG.replace("every 1h", "every 2h"))

    assert shown(world) == []
    assert world.run("job", "next", "--if-started-now").out == "nothing would be caught up\n"
