"""S17: over 100,000 randomised attempts every mark is its own attempt's, and closes exactly what that used.

In process, on real database files; only the way out is scripted. `--s17-requests` and `--s17-seed` ask for
more, or for another world. What runs at once is interleaved by the machine: a seed names a world, no replay.
"""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.attribution.breaks import BREAKS, broken_store
from support.attribution.letter import COLUMNS, SCOPES
from support.attribution.property import examine

WORLDS = 2  # each a process with a database of its own
TESTS = Path(__file__).parents[1]
ENOUGH = 3_000  # requests, among which everything is met
ENOUGH_FOR_A_BREAK = 1_500
LONGEST_START, SLOWEST = 600, 10  # seconds, and requests per second: a world that is slower hangs


def world(seed: int, requests: int) -> dict[str, Any]:
    """Run one world as a process and return what it found."""
    words = ["-m", "support.attribution", "--seed", str(seed), "--requests", str(requests)]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=LONGEST_START + requests / SLOWEST,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_s17_every_mark_is_earned_and_closes_exactly_what_its_attempt_used(
    request: pytest.FixtureRequest,
) -> None:
    requests, seed = (request.config.getoption(name) for name in ("--s17-requests", "--s17-seed"))
    share = -(-requests // WORLDS)

    with ThreadPoolExecutor(WORLDS) as processes:
        found = list(processes.map(world, range(seed, seed + WORLDS), [share] * WORLDS))

    assert [(each["seed"], each["wrong"]) for each in found] == [(each["seed"], []) for each in found]
    assert sum(each["requests"] for each in found) >= requests
    if requests >= ENOUGH:
        assert sum((Counter(each["marks_by_scope"]) for each in found), Counter()).keys() == COLUMNS.keys()
        classes = sum((Counter(each["failures_by_class"]) for each in found), Counter())
        assert classes.keys() >= SCOPES.keys(), "a class that marks was never met"


@pytest.mark.anyio
@pytest.mark.parametrize("way", BREAKS)
async def test_s17_is_broken_by_a_mark_that_goes_astray(way: str, tmp_path: Path) -> None:
    """To the pool's head, to the primary, or by the provider's name only."""
    found = await examine(tmp_path, seed=17, requests=ENOUGH_FOR_A_BREAK, make_store=broken_store(way))

    told = "the database refused a mark" if way == "pool-head" else "has another class than the attempt"
    assert any(told in wrong for wrong in found.wrong), found.shown()


@pytest.mark.anyio
async def test_s17_holds_in_the_same_world_where_nothing_is_broken(tmp_path: Path) -> None:
    """What the oracle says of a broken world, it says because that is broken."""
    found = await examine(tmp_path, seed=17, requests=ENOUGH_FOR_A_BREAK)

    assert found.wrong == []
