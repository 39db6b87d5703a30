"""When each job last succeeded and last started: read as a whole once, then only what has changed since."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Row, func, select

from jobs.run import RunState
from jobs.store.jobs import in_portions
from jobs.store.tables import jobs, runs


@dataclass(frozen=True, slots=True)
class LastRuns:
    """When a job's newest success ended and when its newest run that has begun did, with those runs' ids.

    None, and 0, where there is no such run.
    """

    success_at: datetime | None = None
    start_at: datetime | None = None
    success_id: int = 0
    start_id: int = 0

    def after(self, row: "_Seen") -> "LastRuns":
        """Return what holds once a run is seen as it stands."""
        found = self
        if row.started_at is not None and row.id >= self.start_id:
            found = replace(found, start_at=row.started_at, start_id=row.id)
        if row.state == RunState.SUCCEEDED and row.id >= self.success_id:
            found = replace(found, success_at=row.finished_at, success_id=row.id)
        return found


class Recollection:
    """Remembers `LastRuns` by job, of whichever process's runs; one thread at a time may ask it.

    No index leads to a success: the first look passes by every run that a job has had since its newest one.
    Later looks read the runs that were open at the look before, and those that have come since: a run that
    has ended never changes.
    """

    def __init__(self) -> None:
        self._last: dict[str, LastRuns] | None = None
        self._seen = 0
        self._open: tuple[int, ...] = ()

    def look(self, connection: Connection) -> Mapping[str, LastRuns]:
        """Return how it stands in this connection's snapshot."""
        newest = connection.execute(_NEWEST).scalar_one()
        if self._last is None or newest - self._seen > _READ_ONE_BY_ONE:
            still_open = connection.execute(_OPEN).scalars()
            rows = _those(connection, {*_first_look(connection), *still_open, *self._open})
        else:
            rows = _those(connection, self._open)
            rows += connection.execute(_RUNS.where(runs.c.id > self._seen)).all()
        last = dict(self._last or {})
        for row in rows:
            last[row.job] = last.get(row.job, LastRuns()).after(row)
        self._seen = newest
        self._open = tuple(row.id for row in rows if row.finished_at is None)
        self._last = last
        return last


_Seen = Row[int, str, str, datetime | None, datetime | None]
_RUNS = select(runs.c.id, runs.c.job, runs.c.state, runs.c.started_at, runs.c.finished_at)
_OPEN = select(runs.c.id).where(runs.c.finished_at.is_(None))
_READ_ONE_BY_ONE = 10_000  # after more new runs than that the first look is the shorter way
_NEWEST = select(func.coalesce(func.max(runs.c.id), 0))


def _those(connection: Connection, ids: Iterable[int]) -> list[_Seen]:
    """Return the runs of these ids that are there."""
    portions = in_portions(ids)
    return [row for each in portions for row in connection.execute(_RUNS.where(runs.c.id.in_(each)))]


def _first_look(connection: Connection) -> Iterator[int]:
    """Yield the ids of each job's newest success and of its newest run that has begun."""
    newest = select(runs.c.id).where(runs.c.job == jobs.c.name).order_by(runs.c.id.desc()).limit(1)
    success = newest.where(runs.c.state == RunState.SUCCEEDED).scalar_subquery()
    start = newest.where(runs.c.started_at.is_not(None)).scalar_subquery()
    for row in connection.execute(select(success, start).select_from(jobs)):
        yield from (run_id for run_id in row if run_id is not None)
