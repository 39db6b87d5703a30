"""The audit of a whole ledger: every job's timetables are replayed over its rows, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from zoneinfo import ZoneInfoNotFoundError

from sqlalchemy import Connection

from jobs.store import postgresql, replay
from jobs.store.jobs import StoredPeriod
from jobs.store.replay import Contradiction, Entry, Known
from scheduler.audit import Fault, Kind, Owed, judged
from scheduler.periods import SECOND, Period
from scheduler.timetable import Timetable

MOST_LISTED = 100
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)  # a line is asked whether it ever comes: it did


@dataclass(slots=True)
class Audit:
    """What was found. Of the faults the first `MOST_LISTED` are kept, and all are counted by kind.

    `unchecked` says, by job, before when rows lie that nothing is known of, and how many those are.
    `open_runs` are those of processes that are gone, which nobody has taken up yet: no fault.
    """

    jobs: int = 0
    instants: int = 0
    rows: int = 0
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    contradictions: list[Contradiction] = field(default_factory=list)
    unchecked: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    open_runs: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every instant has its one row, and nothing contradicts itself."""
        return not self.kinds and not self.contradictions

    def note(self, job: str, fault: Fault) -> None:
        """Count a fault, and keep it if there is room."""
        self.kinds[fault.kind] += 1
        if len(self.faults) < MOST_LISTED:
            self.faults.append((job, fault))


def audited(connection: Connection, *, since: datetime | None, now: datetime) -> Audit:
    """Audit every job from `since` on, or as far back as anything is known; reads one snapshot.

    It takes as long as it takes, on a server too: a ledger may be large.
    """
    postgresql.without_limit(connection)
    audit = Audit(
        contradictions=replay.contradictions(connection), open_runs=replay.left_behind(connection, now=now)
    )
    for job in replay.known_jobs(connection):
        _audit_job(connection, job, since, audit)
    return audit


def _audit_job(connection: Connection, job: Known, since: datetime | None, audit: Audit) -> None:
    stored = replay.periods_of(connection, job.name)
    if not stored:
        return
    horizon = max(job.pruned_until or stored[0].since, stored[0].since)
    before = replay.rows_before(connection, job.name, horizon)
    if before:
        audit.unchecked[job.name] = (horizon, before)
    audit.jobs += 1
    try:
        periods = [_period(each, job) for each in stored]
    except (ValueError, ZoneInfoNotFoundError):
        audit.note(job.name, Fault(Kind.UNREADABLE, horizon, job.cursor, 0))
        return
    begin = max(horizon, since or horizon)
    entries = replay.entries_of(connection, job.name, after=begin)
    first = next(entries, None)
    if first is not None:
        begin = max(horizon, min(begin, first.first - SECOND))  # a span is judged whole
        entries = chain((first,), entries)
    owed = Owed.of(periods, since=begin, until=max(begin, job.cursor))
    audit.instants += owed.count(begin, owed.until)
    for fault in judged(owed, _counted(entries, audit)):
        audit.note(job.name, fault)


def _counted(entries: Iterator[Entry], audit: Audit) -> Iterator[Entry]:
    for entry in entries:
        audit.rows += 1
        yield entry


def _period(stored: StoredPeriod, job: Known) -> Period:
    schedule = (
        Timetable.from_key(stored.timetable).schedule(now=_LONG_AGO, anchor=job.first_seen_at)
        if stored.timetable is not None
        else None
    )
    return Period(stored.since, stored.until, schedule, stored.paused)
