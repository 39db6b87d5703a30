"""`kill -9` at named points and at random, round after round on one database: the books balance afterwards.

The harness of `tests/support/crash` runs as a process. `--crash-rounds` and `--crash-seed` ask for more, or
for other rounds; `make crash N=500 SEED=7` prints the figures of a run.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.crash.accounts import judge
from support.crash.harness import LETTERS, LIST
from support.crash.memory import Memory, faults_of, opened
from support.crash.outbox import judge_outbox, taken_too_often
from support.crash.provider import Said
from support.crash.receiver import HOOK, Heard
from support.crash.rounds import ROUNDS

TESTS = Path(__file__).parents[1]
LONGEST_START, LONGEST_ROUND = 600, 120  # seconds: a harness that takes longer hangs
SECOND_BEFORE = "strftime('%Y-%m-%d %H:%M:%S.000000', scheduled_for, '-1 second')"
HOUR_AFTER = "strftime('%Y-%m-%d %H:%M:%S.000000', until, '+1 hour')"
MINUTE_BEFORE = "strftime('%Y-%m-%d %H:%M:%S.000000', opened_at, '-1 minute')"
OF_FORBID = "FROM runs WHERE job = 'forbid' AND span_count = 1 AND state"
BREAKS = {
    "an instant without a row": (
        f"DELETE FROM runs WHERE id = (SELECT id {OF_FORBID} = 'skipped' ORDER BY id LIMIT 1)",
        "forbid: row",
    ),
    "an instant with two rows": (
        f"UPDATE runs SET span_count = 2, span_first = {SECOND_BEFORE}"
        f" WHERE id = (SELECT max(id) {OF_FORBID} = 'skipped')",
        "forbid: row",
    ),
    "the last instants without a row": (
        f"UPDATE schedule_periods SET until = {HOUR_AFTER} WHERE job = 'caught-up' AND until IS NOT NULL;"
        "UPDATE jobs SET cursor = (SELECT max(until) FROM schedule_periods WHERE job = 'caught-up')"
        " WHERE name = 'caught-up'",
        "instants from",
    ),
    "a request without an attempt": (
        "DELETE FROM attempts WHERE id = (SELECT max(id) FROM attempts WHERE outcome = 'succeeded')",
        "requests for",
    ),
    "a success without a request": (
        "UPDATE attempts SET request_id = NULL WHERE id ="
        " (SELECT max(id) FROM attempts WHERE outcome = 'succeeded')",
        "the provider knows nothing of it",
    ),
    "two attempts with one request": (
        "UPDATE attempts SET request_id = 'req-1' WHERE id ="
        " (SELECT max(id) FROM attempts WHERE outcome = 'succeeded')",
        "names a request of somebody else",
    ),
    "a failure that was a success": (
        "UPDATE attempts SET outcome = 'succeeded', error_class = NULL WHERE id ="
        " (SELECT max(id) FROM attempts WHERE outcome = 'failed' AND request_id IS NOT NULL)",
        "is succeeded, the provider said None",
    ),
    "an answer that was thrown away": (
        "UPDATE runs SET output = 'another' WHERE id = (SELECT max(id) FROM runs WHERE state = 'succeeded')",
        "was thrown away",
    ),
    "a run that was asked again although it may have been paid": (
        "UPDATE attempts SET outcome = 'unknown', error_class = NULL, request_id = NULL WHERE id ="
        " (SELECT first.id FROM attempts AS first JOIN runs ON runs.id = first.run_id"
        " JOIN attempts AS later ON later.run_id = first.run_id AND later.ordinal > first.ordinal"
        " WHERE job = 'backed' AND first.outcome = 'failed' AND later.outcome = 'succeeded' LIMIT 1)",
        "although it may have been paid",
    ),
    "a run that never ends": (
        "UPDATE runs SET state = 'queued', finished_at = NULL WHERE id ="
        " (SELECT max(id) FROM runs WHERE state = 'skipped' AND span_count = 1)",
        "is queued for ever",
    ),
}

TO_HOOK = "SELECT max(id) FROM deliveries WHERE state = 'delivered' AND target = 'hook' AND run_id"
OUTBOX_BREAKS = {
    "an end that was not enqueued": (
        f"DELETE FROM deliveries WHERE id = ({TO_HOOK} IS NOT NULL)",
        "0 rows for hook",
    ),
    "an end that was enqueued though nobody wants it": (
        "INSERT INTO deliveries (run_id, target, state, idempotency_key, next_attempt_at, created_at)"
        " SELECT min(id), 'hook', 'pending', 'another', min(finished_at), min(finished_at) FROM runs"
        " WHERE job = 'jitter' AND finished_at IS NOT NULL",
        "a row for hook that nobody wants",
    ),
    "an unchanged answer that was enqueued": (
        "UPDATE runs SET output = 'the same' WHERE job = 'parent' AND state = 'succeeded'",
        "of parent is succeeded: 1 rows for hook",
    ),
    "another key than was heard": (
        f"UPDATE deliveries SET idempotency_key = 'another' WHERE id = ({TO_HOOK} IS NOT NULL)",
        "the outbox has no such row",
    ),
    "another answer than was heard": (
        "UPDATE runs SET output = 'another' WHERE id = (SELECT max(run_id) FROM deliveries JOIN runs"
        " ON runs.id = run_id WHERE target = 'hook' AND runs.state = 'succeeded')",
        "has said",
    ),
    "a file that nobody has written": (
        "UPDATE deliveries SET target = 'inbox' WHERE id = (SELECT max(deliveries.id) FROM deliveries"
        " JOIN runs ON runs.id = run_id WHERE job = 'rerun' AND deliveries.state = 'delivered')",
        "to inbox is delivered, and nobody has heard of it",
    ),
    "an attempt too few": (
        f"UPDATE deliveries SET attempts = 0, failures = 0 WHERE id = ({TO_HOOK} IS NOT NULL)",
        "has 0 attempts, and was heard",
    ),
    "a failure that nobody has caused": (
        "UPDATE deliveries SET failures = 1 WHERE id ="
        " (SELECT max(id) FROM deliveries WHERE target = 'inbox' AND state = 'delivered')",
        "has 1 failures, and was refused 0 times",
    ),
    "a dead letter": (
        f"UPDATE deliveries SET state = 'failed' WHERE id = ({TO_HOOK} IS NOT NULL)",
        "has failed for good",
    ),
    "a delivery that waits for ever": (
        "UPDATE deliveries SET state = 'pending', finished_at = NULL, next_attempt_at = created_at"
        f" WHERE id = ({TO_HOOK} IS NOT NULL)",
        "waits for ever",
    ),
    "two alerts of one key": (
        "INSERT INTO alerts (key, kind, job, message, opened_at, told_at, resolved_at)"
        f" SELECT key, kind, job, message, {MINUTE_BEFORE}, told_at, resolved_at FROM alerts"
        " WHERE id = (SELECT max(id) FROM alerts WHERE resolved_at > opened_at)",
        "was opened while",
    ),
    "an alert that was told of again": (
        "INSERT INTO alerts (key, kind, job, message, opened_at, told_at, resolved_at)"
        " SELECT key, kind, job, message, opened_at, told_at, resolved_at FROM alerts"
        " WHERE kind = 'run_abandoned' LIMIT 1",
        "is told of again",
    ),
    "an alert whose opening goes nowhere": (
        "DELETE FROM deliveries WHERE id ="
        " (SELECT max(id) FROM deliveries WHERE notice = 'opened' AND target = 'inbox')",
        "opened) have [",
    ),
    "an alert whose end is told though it has none": (
        "UPDATE alerts SET resolved_at = strftime('%Y-%m-%d %H:%M:%S.000000', resolved_at, '+2 seconds')"
        " WHERE id = (SELECT max(alert_id) FROM deliveries WHERE notice = 'resolved')",
        "has a row resolved for",
    ),
}


@dataclass(frozen=True)
class Played:
    """What the harness said of its rounds, and the directory in which it played them."""

    found: dict[str, Any]
    directory: Path

    @property
    def database(self) -> Path:
        """The database as the rounds have left it."""
        return self.directory / "state" / "promptd.db"

    @property
    def said(self) -> list[Said]:
        """The provider's list of requests."""
        return [Said(**each) for each in json.loads((self.directory / LIST).read_text("utf-8"))]

    @property
    def heard(self) -> list[Heard]:
        """All deliveries that have arrived."""
        return [Heard(**each) for each in json.loads((self.directory / LETTERS).read_text("utf-8"))]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The rounds, once for all tests."""
    rounds, seed = (request.config.getoption(name) for name in ("--crash-rounds", "--crash-seed"))
    directory = tmp_path_factory.mktemp("crash") / "kept"
    words = ["-m", "support.crash", "--rounds", str(rounds), "--seed", str(seed), "--keep", str(directory)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=LONGEST_START + LONGEST_ROUND * rounds,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return Played(json.loads(done.stdout), directory)


@pytest.fixture
def books(played: Played, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the database, to be tampered with."""
    copy = tmp_path / "promptd.db"
    with closing(sqlite3.connect(played.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with opened(copy) as connection:
        yield connection


def test_no_instant_is_lost_none_runs_twice_and_nothing_final_changes_whenever_a_daemon_is_killed(
    played: Played,
) -> None:
    """The ledger agrees with the provider's own list, with the clock, and with `promptd audit`."""
    assert played.found["wrong"] == []
    assert played.found["audits"] > played.found["rounds"] // 10


def test_daemons_were_killed_at_every_point(played: Played) -> None:
    """What was waited for in vain says nothing."""
    if played.found["rounds"] >= len(ROUNDS):
        assert set(ROUNDS) <= played.found["kills"].keys()
    assert sum(played.found["kills"].values()) >= 0.9 * played.found["rounds"]


def test_work_was_done_and_lost_between_the_kills(played: Played) -> None:
    """Rounds in which nothing is under way would prove nothing."""
    runs, attempts = played.found["runs"], played.found["attempts"]

    assert played.found["requests"] > 5 * played.found["rounds"]
    assert {"succeeded", "failed", "skipped", "missed", "abandoned"} <= runs.keys()
    assert {"succeeded", "failed", "unknown"} <= attempts.keys()
    assert played.found["tries_after_a_crash"] > 0


def test_deliveries_and_alerts_were_under_way_when_daemons_were_killed(played: Played) -> None:
    """To each kind of target, and some of them twice."""
    assert {"hook delivered", "inbox delivered", "pipe delivered"} <= played.found["deliveries"].keys()
    assert {"job_failing", "run_abandoned"} <= played.found["alerts"].keys()
    assert played.found["arrived_again"] > 0


@pytest.mark.parametrize(("tampering", "told"), BREAKS.values(), ids=BREAKS)
def test_the_books_do_not_balance_with(
    tampering: str, told: str, played: Played, books: sqlite3.Connection
) -> None:
    books.executescript(tampering)

    assert any(told in wrong for wrong in judge(books, played.said, settled=True))


@pytest.mark.parametrize(("tampering", "told"), OUTBOX_BREAKS.values(), ids=OUTBOX_BREAKS)
def test_the_outbox_does_not_balance_with(
    tampering: str, told: str, played: Played, books: sqlite3.Connection
) -> None:
    books.executescript(tampering)

    assert any(told in wrong for wrong in judge_outbox(books, played.heard, settled=True))


def test_what_is_heard_twice_under_two_keys_is_noticed(played: Played, books: sqlite3.Connection) -> None:
    first = next(each for each in played.heard if each.target == HOOK)

    wrong = judge_outbox(books, [*played.heard, replace(first, key="another")], settled=True)

    assert any("was heard under 2 keys" in each for each in wrong)


def test_what_is_sent_again_though_nobody_has_died_is_noticed() -> None:
    first, again = (Heard(HOOK, "key", run_id=1, at=at) for at in (1.0, 2.0))

    assert taken_too_often([first, again], [(0.4, 0.5), (3.0, 3.1)]) != []
    assert taken_too_often([first, again], [(1.4, 1.5)]) == []
    assert taken_too_often([first, again], [(0.9, 4.0)]) == []
    assert taken_too_often([replace(first, taken=False), again], []) == []


def test_a_final_row_that_changes_is_noticed(books: sqlite3.Connection) -> None:
    memory = Memory()
    memory.look(books)

    books.execute("UPDATE runs SET reason = 'another' WHERE id = (SELECT max(id) FROM runs)")
    books.execute("DELETE FROM attempts WHERE id = (SELECT min(id) FROM attempts)")
    over = "SELECT min(id) FROM alerts WHERE resolved_at = told_at"
    books.execute(f"UPDATE alerts SET message = '' WHERE id = ({over})")
    books.execute(f"UPDATE deliveries SET attempts = 9 WHERE id = ({TO_HOOK} IS NOT NULL)")

    changed = sorted(each.split()[0] for each in memory.look(books))
    assert changed == ["alert", "attempt", "delivery", "run"]


def test_a_damaged_file_is_noticed(played: Played, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    shutil.copy(played.database, damaged)
    with opened(damaged) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_runs_job_id'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with damaged.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\0" * size)

    assert faults_of(damaged) != []
