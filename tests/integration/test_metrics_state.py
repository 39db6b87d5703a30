"""What a scrape shows of the state: as the database tells it at that moment, or nothing."""

import asyncio
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from support.ledger import make_database, make_instance

from jobs.run import Trigger
from jobs.secret import Redactor
from jobs.store import jobs as job_verbs
from jobs.store import runs
from jobs.store.last_runs import Recollection
from scheduler.app import open_vault
from scheduler.config.loader import load
from scheduler.config.settings import Settings
from scheduler.figures import JobFigure, Snapshot
from scheduler.metrics import Known, Metrics
from scheduler.state import StateForScrapes, known_of, read_snapshot

NOW = datetime(2026, 9, 4, 8, tzinfo=UTC)
CONFIG = """
state_dir: state
timezone: UTC
model: openai/gpt
fallback_providers: [openai-codex/gpt, zai/glm]
delivery: {inbox: {file: "out/{job}.md"}}
jobs:
  - {name: digest, schedule: "@daily", prompt: p}
  - {name: news, schedule: "@hourly", prompt: p, model: zai/glm, fallback: none}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "promptd.yaml").write_text(CONFIG)
    (tmp_path / "state").mkdir(mode=0o700)
    return load(tmp_path / "promptd.yaml", environ={"OPENAI_API_KEY": "key-of-openai"}, now=NOW)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    engine = make_database(settings.state_dir / "promptd.db")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def snapshot(connection: Connection, settings: Settings) -> Snapshot:
    vault = open_vault(settings, {"OPENAI_API_KEY": "key-of-openai"}, Redactor())
    return read_snapshot(
        connection,
        settings,
        vault,
        recollection=Recollection(),
        next_runs={"digest": NOW},
        planner_beat_at=NOW,
        now=NOW,
    )


def shown(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_a_removed_job_is_neither_paused_nor_held(connection: Connection, settings: Settings) -> None:
    job_verbs.see(connection, {"digest": None, "gone": None}, now=NOW)
    for name in ("digest", "gone"):
        job_verbs.pause(connection, name, reason="by hand", now=NOW)

    found = snapshot(connection, settings)

    assert found.jobs_paused == 1
    assert [job.name for job in found.jobs] == ["digest", "news"]


def test_runs_in_progress_are_those_of_the_ledger(connection: Connection, settings: Settings) -> None:
    instance = make_instance(connection)
    job_verbs.see(connection, {"digest": None}, now=NOW)
    target = settings.jobs["digest"].job.chain[0]
    first, _second = (
        runs.add(connection, job=name, trigger=Trigger.MANUAL, instance_id=instance, now=NOW)
        for name in ("digest", "news")
    )
    runs.start(connection, first, primary=target, instance_id=instance, now=NOW)

    found = snapshot(connection, settings)

    assert found.runs_in_progress == 1
    assert found.jobs[0] == JobFigure("digest", NOW, None, NOW, 0)


def test_figures_know_the_names_of_the_configuration(settings: Settings) -> None:
    known = known_of(settings)

    assert list(known.jobs) == ["digest", "news"]
    assert list(known.targets) == ["inbox"]
    assert set(known.providers) == {"openai", "openai-codex", "zai"}
    assert list(known.logins) == ["openai-codex"]
    assert set(known.ways) == {("openai", "openai-codex"), ("openai", "zai"), ("openai-codex", "zai")}


@pytest.mark.anyio
async def test_a_database_that_cannot_be_read_leaves_the_counters_and_no_old_state() -> None:
    metrics = Metrics(version="1", known=Known(jobs=["digest"]))
    metrics.take(Snapshot(jobs=(JobFigure("digest", NOW, NOW, NOW, 0),)))

    async def refuse() -> Snapshot:
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error"))

    await StateForScrapes(metrics, refuse).refresh()

    assert 'promptd_runs_total{job="digest",state="other"} 0.0' in shown(metrics)
    assert 'promptd_db_errors_total{kind="other"} 1.0' in shown(metrics)
    for name in ("job_next_run_timestamp_seconds", "jobs_held", "runs_in_progress"):
        assert f"promptd_{name}" not in shown(metrics)


@pytest.mark.anyio
async def test_a_read_that_hangs_holds_no_scrape_up_and_nobody_begins_another() -> None:
    metrics, asked, let_go = Metrics(version="1", known=Known()), [], asyncio.Event()

    async def hang() -> Snapshot:
        asked.append(len(asked))
        await let_go.wait()
        return Snapshot(jobs_held=len(asked))

    state = StateForScrapes(metrics, hang, patience=0.05)
    await asyncio.gather(state.refresh(), state.refresh())
    await state.refresh()

    assert asked == [0]
    assert 'promptd_db_errors_total{kind="locked"} 3.0' in shown(metrics)
    refreshing = asyncio.create_task(state.refresh())
    let_go.set()
    await refreshing
    assert "promptd_jobs_held 1.0" in shown(metrics)


def test_what_is_held_until_a_moment_is_not_held_after_it(connection: Connection, settings: Settings) -> None:
    job_verbs.see(connection, {"digest": None}, now=NOW)
    connection.exec_driver_sql(
        "UPDATE jobs SET held_until = ?", ((NOW - timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S.%f"),)
    )

    assert snapshot(connection, settings).jobs_held == 0
