"""Claiming due instants: whoever moves a job's cursor on has decided them, and inserts their rows with it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from jobs.run import COUNTING_TRIGGERS, Bounds, ClaimedRun, Concurrency, Reason, RunState, Trigger
from jobs.store import jobs as job_verbs
from jobs.store.jobs import insert_or_ignore
from jobs.store.ledger import tokens_used
from jobs.store.tables import jobs, runs

ROWS_A_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class NewRun:
    """A row to be claimed. `state` is `queued`, or final for an instant that will never run.

    A row that spans several instants stands at the last one, and says the first and how many. One that is
    `behind` begins when the earlier runs of its job have ended, whatever the job's concurrency says.
    """

    job: str
    scheduled_for: datetime
    trigger: Trigger
    state: RunState = RunState.QUEUED
    reason: str | None = None
    span_first: datetime | None = None
    span_count: int = 1
    behind: bool = False


@dataclass(frozen=True, slots=True)
class JobClaim:
    """What became of one job's instants, decided from its `cursor` in the period `period_id`.

    With the claim its cursor is `new_cursor`.
    """

    job: str
    cursor: datetime
    period_id: int | None
    new_cursor: datetime
    rows: tuple[NewRun, ...]
    bounds: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim has won: queued runs that are ours to do, and instants that ended as they were decided.

    Of the `stale` jobs nothing was written: another process has moved their cursor, or their timetable or
    pause has changed; read their states and plan them anew. `replaced` are runs that have ended waiting, or
    that run and have to end.
    """

    ours: tuple[ClaimedRun, ...] = ()
    final: tuple[NewRun, ...] = ()
    stale: tuple[str, ...] = ()
    replaced: tuple[int, ...] = ()


@dataclass(slots=True)
class OpenRuns:
    """The runs of one job that have not ended, as a claim goes on: those that wait, and those that run.

    Those of the `backlog` are caught up one after the other, and nothing replaces them.
    """

    waiting: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    backlog: int = 0
    added: int = 0

    @property
    def number(self) -> int:
        """How many they are."""
        return len(self.waiting) + len(self.running) + self.backlog + self.added

    def add(self, run: NewRun) -> None:
        """Count a run that the claim makes."""
        if run.behind:
            self.backlog += 1
        else:
            self.added += 1


def claim(connection: Connection, claims: Sequence[JobClaim], *, instance_id: int, now: datetime) -> Claimed:
    """Insert the rows of every job whose cursor and period are still those it was planned with.

    A run whose job is still at work becomes `skipped: overlap`, waits behind it, or replaces it, as the
    job's concurrency says.
    """
    known = _as_they_are(connection, [each.job for each in claims])
    standing = [each for each in claims if _stands(known.get(each.job), each)]
    open_runs = open_runs_of(connection, [each.job for each in standing])
    rows: list[dict[str, Any]] = []
    replaced: list[int] = []
    cursors = []
    for each in standing:
        decided = _decided(connection, each, open_runs[each.job], now)
        replaced += decided.replaced
        rows += [row_of(run, instance_id, now) for run in decided.rows]
        cursors.append((each.job, decided.cursor, decided.started))
    ours, final = insert_rows(connection, rows)
    _advance(connection, cursors)
    stale = {each.job for each in claims} - {each.job for each in standing}
    return Claimed(tuple(ours), tuple(final), tuple(sorted(stale)), tuple(replaced))


def _as_they_are(connection: Connection, names: list[str]) -> dict[str, Row[Any]]:
    """Return the jobs' rows: writing transactions come one after the other, so nobody changes them now."""
    found: dict[str, Row[Any]] = {}
    for portion in job_verbs.in_portions(names):
        rows = connection.execute(
            select(*(jobs.c[name] for name in _AS_PLANNED)).where(jobs.c.name.in_(portion))
        )
        found |= {row.name: row for row in rows}
    return found


_AS_PLANNED = ("name", "cursor", "first_seen_at", "period_id", "runs_started")


def _stands(row: Row[Any] | None, claimed: JobClaim) -> bool:
    """Say whether a job is as it was planned: runs after others may have ended its schedule meanwhile."""
    if row is None:
        return False
    most = claimed.bounds.max_runs
    goes_on = most is None or row.runs_started < most
    planned = (row.cursor or row.first_seen_at, row.period_id) == (claimed.cursor, claimed.period_id)
    return bool(planned and goes_on)


def open_runs_of(connection: Connection, names: Collection[str]) -> defaultdict[str, OpenRuns]:
    """Return the runs of these jobs that have not ended, by job."""
    found: defaultdict[str, OpenRuns] = defaultdict(OpenRuns)
    for portion in job_verbs.in_portions(names):
        query = select(*(runs.c[name] for name in ("id", "job", "state", "trigger", "behind"))).where(
            runs.c.finished_at.is_(None), runs.c.job.in_(portion)
        )
        for row in connection.execute(query.order_by(runs.c.id)):
            mine = found[row.job]
            if row.behind and row.trigger == Trigger.CATCH_UP:
                mine.backlog += 1
            else:
                (mine.running if row.state == RunState.RUNNING else mine.waiting).append(row.id)
    return found


@dataclass(frozen=True, slots=True)
class _Decided:
    rows: list[NewRun]
    cursor: datetime
    started: int
    replaced: list[int]


def _decided(connection: Connection, claimed: JobClaim, open_runs: OpenRuns, now: datetime) -> _Decided:
    """Settle what becomes of a job's rows beside the runs it has already, up to the end of its schedule."""
    rows: list[NewRun] = []
    replaced: list[int] = []
    begun, most = 0, claimed.bounds.max_runs
    for run in _in_one_look(claimed):
        settled, gone = beside(connection, run, open_runs, claimed.bounds, now)
        replaced += gone
        _append(rows, settled)
        if settled.state is RunState.QUEUED:
            begun += 1
            open_runs.add(run)
            if most is not None and _started(connection, claimed.job) + begun >= most:
                job_verbs.end_schedule(connection, claimed.job, at=run.scheduled_for)
                return _Decided(rows, run.scheduled_for, begun, replaced)
    return _Decided(rows, claimed.new_cursor, begun, replaced)


def _in_one_look(claimed: JobClaim) -> Iterable[NewRun]:
    """Yield a job's rows; of runs that would replace each other at once only the newest one begins."""
    begin = [run for run in claimed.rows if run.state is RunState.QUEUED and not run.behind]
    older = begin[:-1] if claimed.bounds.concurrency is Concurrency.REPLACE else []
    for run in claimed.rows:
        yield _skipped(run, Reason.OVERLAP) if run in older else run


def _started(connection: Connection, job: str) -> int:
    return int(connection.execute(select(jobs.c.runs_started).where(jobs.c.name == job)).scalar_one())


def beside(
    connection: Connection, run: NewRun, open_runs: OpenRuns, bounds: Bounds, now: datetime
) -> tuple[NewRun, list[int]]:
    """Return what becomes of a run beside those that have not ended, and the running ones it replaces."""
    if run.state is not RunState.QUEUED:
        return run, []
    if _is_used_up(connection, run, open_runs, bounds):
        return _skipped(run, Reason.BUDGET), []
    if not open_runs.number or run.behind or bounds.concurrency is Concurrency.ALLOW:
        return run, []
    match bounds.concurrency:
        case Concurrency.QUEUE if open_runs.number == 1:
            return replace(run, behind=True), []
        case Concurrency.REPLACE if not open_runs.added:
            return replace(run, behind=True), _replace(connection, open_runs, now)
        case _:
            return _skipped(run, Reason.OVERLAP), []


def _is_used_up(connection: Connection, run: NewRun, open_runs: OpenRuns, bounds: Bounds) -> bool:
    """Say whether a job's tokens of the day are gone; each run that goes on beside this one reserves some."""
    budget = bounds.budget
    if budget is None:
        return False
    beside_it = bounds.concurrency is Concurrency.ALLOW and not run.behind
    reserved = open_runs.number * budget.reserved if beside_it else 0
    return tokens_used(connection, run.job, since=budget.since) + reserved >= budget.tokens


def _skipped(run: NewRun, reason: Reason) -> NewRun:
    return replace(run, state=RunState.SKIPPED, reason=str(reason), behind=False)


def _replace(connection: Connection, open_runs: OpenRuns, now: datetime) -> list[int]:
    """End what waits, and ask for the end of what runs; return both."""
    ended = [*open_runs.waiting, *open_runs.running]
    for run_id in open_runs.waiting:
        end_waiting(connection, run_id, Reason.REPLACED, now=now)
    open_runs.waiting.clear()
    connection.execute(
        update(runs)
        .where(runs.c.id.in_(open_runs.running), runs.c.state == RunState.RUNNING)
        .values(cancel_requested=str(Reason.REPLACED))
    )
    return ended


def end_waiting(connection: Connection, run_id: int, reason: Reason, *, now: datetime) -> bool:
    """End a run that is queued; returns whether it was. One that never began does not count as started."""
    ended = connection.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state == RunState.QUEUED)
        .values(state=RunState.CANCELLED, reason=str(reason), finished_at=now)
        .returning(runs.c.job, runs.c.trigger, runs.c.tries)
    ).one_or_none()
    if ended is not None and ended.tries == 0 and ended.trigger in COUNTING_TRIGGERS:
        job_verbs.give_back(connection, ended.job, now=now)
    return ended is not None


def _append(rows: list[NewRun], run: NewRun) -> None:
    """Add a row, joined with the one before it where both were skipped for the same reason."""
    last = rows[-1] if rows else None
    if (
        last is None
        or run.state is not RunState.SKIPPED
        or (last.state, last.reason, last.trigger) != (run.state, run.reason, run.trigger)
    ):
        rows.append(run)
        return
    first = last.span_first or last.scheduled_for
    rows[-1] = replace(run, span_first=first, span_count=last.span_count + run.span_count)


def row_of(run: NewRun, instance_id: int | None, now: datetime) -> dict[str, Any]:
    """Return a run as a row of the ledger."""
    return {
        "job": run.job,
        "scheduled_for": run.scheduled_for,
        "trigger": run.trigger,
        "state": run.state,
        "reason": run.reason,
        "span_first": run.span_first,
        "span_count": run.span_count,
        "behind": run.behind,
        "instance_id": instance_id,
        "created_at": now,
        "finished_at": None if run.state is RunState.QUEUED else now,
    }


def insert_rows(
    connection: Connection, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[ClaimedRun], list[NewRun]]:
    """Insert rows; return those to be run and the final ones. An instant that has a row keeps that one."""
    ours: list[ClaimedRun] = []
    final: list[NewRun] = []
    for won in connection.execute(_inserting(connection.dialect.name), rows) if rows else ():
        if won.state == RunState.QUEUED:
            run_id, parent_id, job, scheduled_for, trigger, *_, behind = won
            ours.append(
                ClaimedRun(run_id, job, scheduled_for, Trigger(trigger), parent_id=parent_id, behind=behind)
            )
        else:
            final.append(NewRun(*won[2:]))
    return ours, final


@cache
def _inserting(dialect: str) -> Any:
    """Return the statement, built once for a dialect: SQLAlchemy takes longer over it than the database."""
    columns = ("id", "parent_id", *NewRun.__slots__)
    return insert_or_ignore(dialect, runs).returning(*(runs.c[name] for name in columns))


def _advance(connection: Connection, cursors: Iterable[tuple[str, datetime, int]]) -> None:
    """Move cursors on, and count the runs that were started; the rows are locked and as they were read."""
    moved = [{"job_name": job, "moved_to": cursor, "begun": begun} for job, cursor, begun in cursors]
    if moved:
        connection.execute(_MOVE, moved)


_MOVE = (
    update(jobs)
    .where(jobs.c.name == bindparam("job_name"))
    .values(cursor=bindparam("moved_to"), runs_started=jobs.c.runs_started + bindparam("begun"))
)
