"""The property itself: a world is run until enough was asked, or something is wrong; then it is judged."""

import asyncio
import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs import clock
from support.attribution.accounts import make_world
from support.attribution.oracle import Oracle
from support.attribution.runs import MakeStore, Stage, keep_running, open_stage, store_of

GLANCE_EVERY = 0.5
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Found:
    """What one world came to. Figures say how much was tried; `wrong` is everything that must not be.

    `processor_seconds` are those of the whole process.
    """

    seed: int
    requests: int
    calls: int
    marks_written: int
    attempts_by_outcome: dict[str, int]
    marks_by_scope: dict[str, int]
    failures_by_class: dict[str, int]
    seconds: float
    processor_seconds: float
    wrong: list[str]

    def shown(self) -> dict[str, Any]:
        """Return it for people: of what is wrong only the beginning, and how much there is."""
        return {**asdict(self), "wrong": self.wrong[:MOST_SHOWN], "wrong_in_all": len(self.wrong)}


async def examine(directory: Path, *, seed: int, requests: int, make_store: MakeStore = store_of) -> Found:
    """Run a world until so many requests were answered, and judge it."""
    path, world, started = directory / "promptd.db", make_world(seed), clock.monotonic()
    async with open_stage(path, world, seed, requests, make_store) as stage:
        oracle = Oracle(path, world, stage.record)
        watch = asyncio.create_task(_watch(oracle, stage))
        await keep_running(stage, requests)
        watch.cancel()
        await asyncio.wait([watch])
    wrong = oracle.judge()
    oracle.close()
    return _found(path, stage, wrong, clock.monotonic() - started)


async def _watch(oracle: Oracle, stage: Stage) -> None:
    while True:
        await asyncio.sleep(GLANCE_EVERY)
        for wrong in oracle.glance():
            stage.record.complain(wrong)


def _found(path: Path, stage: Stage, wrong: list[str], seconds: float) -> Found:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def counted(query: str) -> dict[str, int]:
        return dict(connection.execute(query).fetchall())

    found = Found(
        seed=stage.seed,
        requests=stage.record.answered,
        calls=len(stage.record.calls),
        marks_written=connection.execute("SELECT count(*) FROM journal_marks").fetchone()[0],
        attempts_by_outcome=counted("SELECT outcome, count(*) FROM attempts GROUP BY 1"),
        marks_by_scope=counted("SELECT scope, count(*) FROM journal_marks GROUP BY 1"),
        failures_by_class=counted(
            "SELECT error_class, count(*) FROM attempts WHERE outcome = 'failed' GROUP BY 1"
        ),
        seconds=round(seconds, 1),
        processor_seconds=round(time.process_time(), 1),
        wrong=wrong,
    )
    connection.close()
    return found
