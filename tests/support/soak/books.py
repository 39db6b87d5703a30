"""What must be true of database and log after the soak: nothing lost, nothing open, nothing unexplained."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from support.soak.faults import Receiver
from support.soak.world import wanted

_ENDED = "state IN ('succeeded', 'failed', 'timed_out', 'abandoned')"
_EXPLAINED = re.compile(r"^not reloaded: .*no_such_key")  # the configuration that cannot be used


def unexplained(lines: Iterable[str]) -> list[str]:
    """Return the lines of errors that the faults do not explain, and what is no line of JSON."""
    found = []
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            found.append(line.strip())
            continue
        if said.get("level") in ("error", "critical") and not _EXPLAINED.search(str(said.get("event"))):
            found.append(line.strip())
    return found


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    """Read the database file itself."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def wrong_with_deliveries(database: Path, receiver: Receiver) -> Iterator[str]:
    """Yield what is wrong: a run without its delivery, one that is not final, one that nobody has got."""
    told = {run for (run,) in rows(database, "SELECT run_id FROM deliveries WHERE run_id IS NOT NULL")}
    silent = Counter(
        job
        for run, job in rows(database, f"SELECT id, job FROM runs WHERE {_ENDED}")
        if wanted(str(job)) and run not in told
    )
    yield from (f"{number} ended runs of {job} have no delivery" for job, number in silent.items())
    for target, state, number in rows(
        database, "SELECT target, state, count(*) FROM deliveries GROUP BY 1, 2"
    ):
        if state != ("failed" if target == "gone" else "delivered"):
            yield f"{number} deliveries to {target} are {state}"
    query = "SELECT idempotency_key FROM deliveries WHERE state = 'delivered' AND target IN ('hook', 'flaky')"
    lost = [key for (key,) in rows(database, query) if key not in receiver.accepted]
    if lost:
        yield f"{len(lost)} deliveries are said to be delivered, and nobody has got them"
    if receiver.changed:
        yield f"{receiver.changed} webhooks came again with another body"


def open_work(database: Path) -> int:
    """Return how many runs and deliveries have not ended."""
    query = (
        "SELECT (SELECT count(*) FROM runs WHERE finished_at IS NULL)"
        " + (SELECT count(*) FROM deliveries WHERE finished_at IS NULL)"
    )
    ((number,),) = rows(database, query)
    return int(str(number))
