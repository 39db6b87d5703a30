"""So many rounds on one database, the last settling of all that is open, and the figures."""

import json
import platform
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scheduler import __version__
from support.crash.accounts import instants
from support.crash.memory import opened
from support.crash.outbox import WAITING, heard_again
from support.crash.provider import Provider
from support.crash.receiver import Receiver
from support.crash.rounds import ROUNDS
from support.crash.stage import PATIENCE, Stage
from support.crash.victims import processor_seconds
from support.crash.world import World

LIST, LETTERS = "said.json", "heard.json"
BOOKS_EVERY = 10  # rounds
LONGEST_GAP = 2.5  # seconds between two rounds, in which instants are missed
GAP_OF_ONE_IN = 5
MOST_SHOWN = 20
_OPEN = f"SELECT (SELECT count(*) FROM runs WHERE finished_at IS NULL) + ({WAITING})"


@dataclass(frozen=True, slots=True)
class Found:
    """What so many rounds came to. `wrong` is all that must not be; the rest says how much was done."""

    seed: int
    rounds: int
    kills: dict[str, int]
    waited_in_vain: dict[str, int]
    requests: int
    instants: int
    runs: dict[str, int]
    attempts: dict[str, int]
    tries_after_a_crash: int
    deliveries: dict[str, int]
    arrived: dict[str, int]
    arrived_again: int
    alerts: dict[str, int]
    audit: str
    audits: int
    versions: dict[str, str]
    seconds: float
    processor_seconds: float
    wrong: list[str]

    def shown(self) -> dict[str, Any]:
        """Return it for people: of what is wrong only the beginning, and how much there is."""
        return {**asdict(self), "wrong": self.wrong[:MOST_SHOWN], "wrong_in_all": len(self.wrong)}


def _nobody(_line: str) -> None:
    """Tell nobody."""


def crash(
    directory: Path,
    *,
    seed: int,
    rounds: int,
    only: str | None = None,
    tell: Callable[[str], None] = _nobody,
) -> Found:
    """Play the rounds; every point comes once before any comes again, in an order that the seed makes.

    The directory holds the configuration, the database and the provider's list of requests afterwards.
    """
    started = time.monotonic()
    chance = random.Random(seed)
    with Provider() as provider, Receiver() as receiver:
        world = World(directory, provider.origin, receiver.url)
        stage = Stage(world, provider, receiver, chance)
        stage.world.state.mkdir(parents=True)
        stage.world.configure()
        for number, name in enumerate(_points(chance, rounds, only), start=1):
            tell(f"round {number} of {rounds}: {name}; {len(stage.wrong)} wrong so far")
            _play(stage, name, number)
        _settle(stage)
        for name, listed in ((LIST, provider.said), (LETTERS, stage.heard())):
            (directory / name).write_text(json.dumps([asdict(each) for each in listed]), "utf-8")
        return _found(stage, seed, rounds, time.monotonic() - started)


def _points(chance: random.Random, rounds: int, only: str | None) -> Iterator[str]:
    left: list[str] = []
    for _ in range(rounds):
        if not left:
            left = [only] if only else chance.sample(sorted(ROUNDS), k=len(ROUNDS))
        yield left.pop()


def _play(stage: Stage, name: str, number: int) -> None:
    stage.at = f"round {number}, {name}"
    if not stage.world.database.exists():  # something has to be there before it can be looked at
        with stage.daemon() as first:
            first.ears.hear("READY=1", time.monotonic() + PATIENCE)
    ROUNDS[name](stage, name)
    stage.look()
    if number % BOOKS_EVERY == 0:
        stage.close_the_books()
    if stage.random.randrange(GAP_OF_ONE_IN) == 0:
        time.sleep(stage.random.uniform(0, LONGEST_GAP))


def _settle(stage: Stage) -> None:
    """Let a daemon that begins nothing new bring everything to its end, and close the books."""
    stage.at = "after the last round"
    stage.close_the_books()
    stage.world.configure(stage.variant, enabled=False)
    with stage.daemon() as last:
        last.ears.hear("READY=1", time.monotonic() + PATIENCE)
        give_up = time.monotonic() + 3 * PATIENCE
        while _counted(stage, _OPEN) and time.monotonic() < give_up and not last.gone(0.2):
            pass
        last.kill(signal.SIGTERM)
        if not last.gone(PATIENCE) or last.process.exitcode != 0:
            stage.complain("the last daemon does not stop")
    stage.look()
    stage.close_the_books(settled=True)


def _counted(stage: Stage, query: str) -> int:
    with opened(stage.world.database) as connection:
        return int(connection.execute(query).fetchone()[0])


def _found(stage: Stage, seed: int, rounds: int, seconds: float) -> Found:
    with opened(stage.world.database) as connection:
        return Found(
            seed=seed,
            rounds=rounds,
            kills=dict(sorted(stage.killed.items())),
            waited_in_vain=dict(sorted(stage.missed.items())),
            requests=stage.provider.received,
            instants=instants(connection),
            runs=_grouped(connection, "SELECT state, count(*) FROM runs GROUP BY 1"),
            attempts=_grouped(connection, "SELECT outcome, count(*) FROM attempts GROUP BY 1"),
            tries_after_a_crash=_counted(
                stage, "SELECT count(*) FROM runs WHERE job = 'rerun' AND tries > 1 AND state = 'succeeded'"
            ),
            deliveries=_grouped(
                connection, "SELECT target || ' ' || state, count(*) FROM deliveries GROUP BY 1"
            ),
            arrived=dict(Counter(each.target for each in stage.heard())),
            arrived_again=heard_again(stage.heard()),
            alerts=_grouped(connection, "SELECT kind, count(*) FROM alerts GROUP BY 1"),
            audit=stage.audits[-1],
            audits=len(stage.audits),
            versions={
                "promptd": __version__,
                "Python": platform.python_version(),
                "SQLite": sqlite3.sqlite_version,
                "Linux": platform.release(),
            },
            seconds=round(seconds, 1),
            processor_seconds=round(processor_seconds(), 1),
            wrong=stage.wrong,
        )


def _grouped(connection: sqlite3.Connection, query: str) -> dict[str, int]:
    return dict(map(tuple, connection.execute(query).fetchall()))
