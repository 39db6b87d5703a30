"""What a dead process has left, and what a passing trouble holds up, is settled by a daemon that stays up."""

import socket
import sqlite3
import subprocess
from contextlib import closing

from support.workplace import PATIENCE, PROMPTD, Workplace, eventually

from jobs.providers.loopback_replies import Endpoint, Reply
from jobs.providers.loopback_thread import ThreadedLoopback

MOMENT = "2026-01-01 00:00:00.000000"
CONFIG = """
model: house/m
providers:
  house: {{base_url: "{url}", credentials: [{{label: main, key: "env:HOUSE"}}]}}
jobs:
  - {{name: digest, schedule: {schedule}, prompt: "Summarise."}}
"""


def test_a_killed_command_does_not_block_its_job(workplace: Workplace, primary: ThreadedLoopback) -> None:
    workplace.environ["HOUSE"] = "sk-house-key"
    workplace.configure(CONFIG.format(url=primary.base_url, schedule="every 2s"))
    primary.script(Endpoint.CHAT, Reply.text("never said").silent(), Reply.text("fine"))
    words = [str(PROMPTD), "--config", str(workplace.config), "job", "run", "digest"]
    command = subprocess.Popen(words, cwd=workplace.directory, env=workplace.environment())
    primary.wait_received(1)

    with workplace.daemon():
        command.kill()
        command.wait()
        answered = eventually(lambda: workplace.rows("SELECT id FROM runs WHERE state = 'succeeded'") or None)

    left = workplace.shown(1)
    assert answered
    assert (left["trigger"], left["state"]) == ("manual", "abandoned")
    assert [attempt["outcome"] for attempt in left["attempts"]] == ["unknown"]


def test_a_queued_run_of_a_dead_process_is_taken_up_meanwhile(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    workplace.environ["HOUSE"] = "sk-house-key"
    workplace.configure(CONFIG.format(url=primary.base_url, schedule="every 1d"))

    with workplace.daemon():
        with closing(sqlite3.connect(workplace.database, timeout=PATIENCE)) as connection, connection:
            connection.execute(
                "INSERT INTO instances (id, kind, host, pid, pid_started, version, started_at, heartbeat_at)"
                " VALUES (99, 'daemon', ?, 1, 'another boot', '0', ?, ?)",
                (socket.gethostname(), MOMENT, MOMENT),
            )
            connection.execute(
                "INSERT INTO runs (job, scheduled_for, trigger, state, instance_id, created_at)"
                " VALUES ('digest', ?, 'schedule', 'queued', 99, ?)",
                (MOMENT, MOMENT),
            )
        workplace.wait_finished()

    (run,) = workplace.finished_runs()
    assert (run["state"], run["trigger"]) == ("succeeded", "schedule")


def test_a_paid_answer_outlasts_a_database_that_is_locked_for_long(
    workplace: Workplace, primary: ThreadedLoopback
) -> None:
    """The lock is held past SQLite's busy timeout, from the request until a write is told to have failed."""
    workplace.environ["HOUSE"] = "sk-house-key"
    workplace.configure(CONFIG.format(url=primary.base_url, schedule="every 1s"))
    primary.script(Endpoint.CHAT, Reply.text("paid for").held())

    with workplace.daemon() as daemon:
        primary.wait_received(1)
        locking = sqlite3.connect(workplace.database, timeout=PATIENCE, isolation_level=None)
        with closing(locking) as connection:
            connection.execute("BEGIN IMMEDIATE")
            primary.let_go()
            eventually(lambda: "write failed" in daemon.log.read_text() or None)
            connection.execute("ROLLBACK")
        workplace.wait_finished()

    run = workplace.shown(1)
    assert (run["state"], run["output"]) == ("succeeded", "paid for")
    assert [attempt["outcome"] for attempt in run["attempts"]] == ["succeeded"]
