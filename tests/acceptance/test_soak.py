"""A daemon with a thousand jobs, for 90 s or an hour, amid faults, reloads and restarts: it stays as it was.

The harness of `tests/support/soak` runs as a process; `--soak-seconds` says for how long, and so does
`make soak SECONDS=3600`. How long it takes is an input: nothing is asserted about speed.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.soak.books import unexplained, wrong_with_deliveries
from support.soak.faults import Receiver
from support.soak.vitals import LARGEST_LOG, Signs, life_of
from support.soak.world import FAULTY, TARGETS, jobs, wanted

TESTS = Path(__file__).parents[1]
LONGEST_REST = 1_200  # seconds for starts, the last settling and the books
ENOUGH = 60  # seconds in which every kind of job has been due


@dataclass(frozen=True)
class Soaked:
    """What the harness said, and the directory in which it soaked."""

    found: dict[str, Any]
    directory: Path
    seconds: float

    @property
    def database(self) -> Path:
        """The database as the soak has left it."""
        return self.directory / "state" / "promptd.db"


@pytest.fixture(scope="module")
def soaked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """One soak for all tests."""
    seconds = float(request.config.getoption("--soak-seconds"))
    directory = tmp_path_factory.mktemp("soak") / "kept"
    done = subprocess.run(
        [sys.executable, "-m", "support.soak", "--seconds", str(seconds), "--keep", str(directory)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=seconds + LONGEST_REST,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    print(done.stdout)
    return Soaked(json.loads(done.stdout), directory, seconds)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that has got nothing."""
    made = Receiver()
    yield made
    made.server_close()


def test_memory_descriptors_threads_and_log_stay_and_nothing_is_lost_or_unexplained(soaked: Soaked) -> None:
    """Audit is clean, each ended run has its deliveries, and each delivery is delivered or given up."""
    assert soaked.found["wrong"] == []


def test_the_daemon_had_work_faults_reloads_and_ends_of_every_kind(soaked: Soaked) -> None:
    """A soak in which nothing happens would prove nothing."""
    found = soaked.found

    assert {life["ended"] for life in found["lives"]} == {"SIGKILL", "SIGTERM"}
    assert found["reloads"] == 3 * len(found["lives"])
    assert found["lines"]["error"] == len(found["lives"]), "one of three reloads is refused, and says so once"
    if soaked.seconds >= ENOUGH:
        assert {"succeeded", "failed", "abandoned"} <= found["runs"].keys()
        assert {"succeeded", "failed", "unknown"} <= found["attempts"].keys()
        assert found["deliveries"].keys() >= {*(f"{each} delivered" for each in TARGETS if each != "gone")}
        assert found["deliveries"]["gone failed"] > 0
        assert found["webhooks_twice"] > 0


def test_the_soak_has_a_thousand_jobs_that_go_to_every_target() -> None:
    assert len(jobs()) == 1_000
    assert {wanted(job) for job in jobs()} == {*TARGETS, None}
    assert all(any(job.startswith(kind) for job in jobs()) for kind in FAULTY)


@pytest.mark.parametrize(
    ("tampering", "told"),
    [
        ("DELETE FROM deliveries WHERE target = 'hook'", "have no delivery"),
        (
            "UPDATE deliveries SET state = 'pending', finished_at = NULL, next_attempt_at = created_at"
            " WHERE id = (SELECT max(id) FROM deliveries)",
            "are pending",
        ),
        ("UPDATE runs SET job = job", "nobody has got them"),
    ],
    ids=["a run without its delivery", "a delivery that waits for ever", "a delivery that never left"],
)
def test_the_books_do_not_balance_with(
    tampering: str, told: str, soaked: Soaked, receiver: Receiver, tmp_path: Path
) -> None:
    copy = tmp_path / "promptd.db"
    with closing(sqlite3.connect(soaked.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with closing(sqlite3.connect(copy)) as books, books:
        books.execute(tampering)

    assert any(told in wrong for wrong in wrong_with_deliveries(copy, receiver))


LOOKS = [Signs(at, 100_000_000, 40, 10, 4_000_000) for at in range(60)]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (Signs(60, 130_000_000, 40, 10, 0), "memory"),
        (Signs(60, 100_000_000, 75, 10, 0), "descriptors"),
        (Signs(60, 100_000_000, 40, 20, 0), "threads"),
        (Signs(60, 100_000_000, 40, 10, LARGEST_LOG + 1), "largest_log"),
    ],
)
def test_what_grows_is_noticed(last: Signs, told: str) -> None:
    grown = [*LOOKS, *(replace(last, at=60 + number) for number in range(30))]

    assert life_of(LOOKS, ended="SIGTERM", warm_after=20).wrong() == []
    assert [wrong.split()[0] for wrong in life_of(grown, ended="SIGTERM", warm_after=20).wrong()] == [told]


def test_an_error_that_the_faults_do_not_explain_is_noticed() -> None:
    lines = [
        '{"level": "error", "event": "not reloaded: promptd.yaml:3:1: no_such_key: is not known"}',
        '{"level": "info", "event": "ready: 1 jobs"}',
        '{"level": "error", "event": "planning failed"}',
        "Traceback (most recent call last):",
    ]

    assert unexplained(lines) == lines[2:]
