"""Runs of the jobs that come after another: claimed in the transaction that writes its success."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from jobs.run import ClaimedRun, Follower, Reason, RunState, Trigger
from jobs.store import claims
from jobs.store import jobs as job_verbs
from jobs.store.claims import NewRun
from jobs.store.tables import jobs


def follow(
    connection: Connection,
    parent: ClaimedRun,
    followers: Iterable[Follower],
    *,
    instance_id: int | None,
    now: datetime,
) -> tuple[tuple[ClaimedRun, ...], tuple[NewRun, ...], tuple[int, ...]]:
    """Claim a run of every follower for a parent that has succeeded.

    Return the runs to be done, the rows that ended as they were decided, and the running runs that have to
    give way. A run that the parent has already brought about is not made again.
    """
    followers = tuple(followers)
    if not followers:
        return (), (), ()
    known = _known(connection, [each.job for each in followers])
    open_runs = claims.open_runs_of(connection, [each.job for each in followers])
    rows, replaced = [], []
    for each in followers:
        run, state = NewRun(each.job, parent.scheduled_for, Trigger.AFTER), known.get(each.job)
        if _has_come_to_its_end(each, state):
            continue
        run = _unless_closed(run, state, now)
        settled, gone = claims.beside(connection, run, open_runs[each.job], each.bounds, now)
        replaced += gone
        rows.append({**claims.row_of(settled, instance_id, now), "parent_id": parent.id})
    ours, final = claims.insert_rows(connection, rows)
    for won in ours:
        _count(connection, won, next(each for each in followers if each.job == won.job))
    return tuple(ours), tuple(final), tuple(replaced)


def _known(connection: Connection, names: list[str]) -> dict[str, Any]:
    columns = (jobs.c.name, jobs.c.paused_at, jobs.c.held_until, jobs.c.runs_started)
    rows = connection.execute(select(*columns).where(jobs.c.name.in_(names)))
    return {row.name: row for row in rows}


def _has_come_to_its_end(follower: Follower, state: Any | None) -> bool:
    most = follower.bounds.max_runs
    return state is not None and most is not None and state.runs_started >= most


def _unless_closed(run: NewRun, state: Any | None, now: datetime) -> NewRun:
    """Skip the run of a job that is paused or held."""
    if state is None:
        return run
    if state.paused_at is not None:
        return replace(run, state=RunState.SKIPPED, reason=str(Reason.PAUSED))
    if state.held_until is not None and state.held_until > now:
        return replace(run, state=RunState.SKIPPED, reason=str(Reason.HELD))
    return run


def _count(connection: Connection, run: ClaimedRun, follower: Follower) -> None:
    started = connection.execute(
        update(jobs)
        .where(jobs.c.name == run.job)
        .values(runs_started=jobs.c.runs_started + 1)
        .returning(jobs.c.runs_started)
    ).scalar_one_or_none()
    most = follower.bounds.max_runs
    if started is not None and most is not None and started >= most:
        job_verbs.end_schedule(connection, run.job)
