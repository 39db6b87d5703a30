"""Reading the ledger: runs with their attempts and deliveries, as people and tools ask for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Select, func, select

from jobs.delivery_state import DeliveryState
from jobs.run import RunState
from jobs.store.jobs import in_portions
from jobs.store.tables import alerts, attempts, deliveries, jobs, runs

RUNS_A_READ = 200


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are wanted; None asks for all. `provider` is a canonical name: who served, or was asked."""

    job: str | None = None
    state: RunState | None = None
    since: datetime | None = None
    provider: str | None = None
    limit: int | None = 50


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are wanted; None asks for all. `job` is whose run, or whose alert, it is of."""

    state: DeliveryState | None = None
    job: str | None = None
    target: str | None = None
    limit: int | None = 50


def list_runs(connection: Connection, wanted: RunFilter) -> list[Mapping[str, Any]]:
    """Return rows of `runs`, newest first."""
    return [dict(row) for row in connection.execute(_wanted(wanted)).mappings()]


def each_run(
    connection: Connection, wanted: RunFilter
) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Yield rows of `runs` with their deliveries, newest first; few of them are held at a time."""
    left, reached = wanted.limit, None
    while left is None or left > 0:
        query = _wanted(replace(wanted, limit=min(RUNS_A_READ, left or RUNS_A_READ)))
        if reached is not None:
            query = query.where(runs.c.id < reached)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return
        deliveries = deliveries_of_each(connection, [row["id"] for row in rows])
        for row in rows:
            yield row, deliveries.get(row["id"], [])
        reached, left = rows[-1]["id"], left - len(rows) if left is not None else None


def _wanted(wanted: RunFilter) -> Select[Any]:
    query = select(runs).order_by(runs.c.id.desc()).limit(wanted.limit)
    if wanted.job is not None:
        query = query.where(runs.c.job == wanted.job)
    if wanted.state is not None:
        query = query.where(runs.c.state == wanted.state)
    if wanted.since is not None:
        query = query.where(runs.c.scheduled_for >= wanted.since)
    if wanted.provider is not None:
        query = query.where(
            (runs.c.served_provider == wanted.provider) | (runs.c.requested_provider == wanted.provider)
        )
    return query


def run(connection: Connection, run_id: int) -> Mapping[str, Any] | None:
    """Return one row of `runs`, None when there is none."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().one_or_none()
    return dict(row) if row else None


def attempts_of(connection: Connection, run_id: int) -> list[Mapping[str, Any]]:
    """Return a run's attempts in order."""
    query = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.ordinal)
    return [dict(row) for row in connection.execute(query).mappings()]


def deliveries_of(connection: Connection, run_id: int) -> list[Mapping[str, Any]]:
    """Return a run's deliveries in order."""
    query = select(deliveries).where(deliveries.c.run_id == run_id).order_by(deliveries.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def deliveries_of_each(connection: Connection, run_ids: Sequence[int]) -> dict[int, list[Mapping[str, Any]]]:
    """Return the deliveries of several runs, each run's in order; a run without any is left out."""
    query = select(deliveries).where(deliveries.c.run_id.in_(run_ids)).order_by(deliveries.c.id)
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["run_id"], []).append(dict(row))
    return found


def list_deliveries(connection: Connection, wanted: DeliveryFilter) -> list[Mapping[str, Any]]:
    """Return rows of `deliveries`, each with the `job` that it is about, newest first."""
    query = _WITH_JOB.order_by(deliveries.c.id.desc()).limit(wanted.limit)
    if wanted.state is not None:
        query = query.where(deliveries.c.state == wanted.state)
    if wanted.job is not None:
        query = query.where(func.coalesce(runs.c.job, alerts.c.job) == wanted.job)
    if wanted.target is not None:
        query = query.where(deliveries.c.target == wanted.target)
    return [dict(row) for row in connection.execute(query).mappings()]


def deliveries_by_id(connection: Connection, ids: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return those of the deliveries that there are, as `list_deliveries` does, oldest first."""
    found: list[Mapping[str, Any]] = []
    for portion in in_portions(sorted(ids)):
        query = _WITH_JOB.where(deliveries.c.id.in_(portion)).order_by(deliveries.c.id)
        found += [dict(row) for row in connection.execute(query).mappings()]
    return found


_WITH_JOB = (
    select(deliveries, func.coalesce(runs.c.job, alerts.c.job).label("job"))
    .outerjoin_from(deliveries, runs, deliveries.c.run_id == runs.c.id)
    .outerjoin(alerts, deliveries.c.alert_id == alerts.c.id)
)


def notice_of(connection: Connection, delivery_id: int) -> Mapping[str, Any] | None:
    """Return an alert's row with the words of one of its notices, by that notice's delivery.

    The notice was `written_at` that moment.
    """
    words = (deliveries.c.notice, deliveries.c.subject, deliveries.c.body)
    query = (
        select(alerts, *words, deliveries.c.created_at.label("written_at"))
        .join_from(deliveries, alerts, deliveries.c.alert_id == alerts.c.id)
        .where(deliveries.c.id == delivery_id)
    )
    row = connection.execute(query).mappings().one_or_none()
    return dict(row) if row else None


def attempts_by_id(connection: Connection, ids: list[int]) -> list[Mapping[str, Any]]:
    """Return attempts by their ids, oldest first."""
    query = select(attempts).where(attempts.c.id.in_(ids)).order_by(attempts.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def last_used(connection: Connection) -> dict[tuple[str, str], datetime]:
    """Return when each (provider, label) credential was last sent with a request."""
    query = (
        select(attempts.c.provider, attempts.c.credential, func.max(attempts.c.started_at))
        .where(attempts.c.credential.is_not(None))
        .group_by(attempts.c.provider, attempts.c.credential)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def last_run_of_each(connection: Connection) -> dict[str, Mapping[str, Any]]:
    """Return each job's newest run that was started or is about to be.

    A look at the newest runs of each job: the whole ledger is not read.
    """
    candidates = runs.alias()
    newest = (
        select(candidates.c.id)
        .where(candidates.c.job == jobs.c.name)
        .where(candidates.c.state.not_in((RunState.SKIPPED, RunState.MISSED)))
        .order_by(candidates.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(runs.c.id, runs.c.job, runs.c.state, runs.c.finished_at).join_from(
        jobs, runs, runs.c.id == newest
    )
    return {row["job"]: dict(row) for row in connection.execute(query).mappings()}


def open_runs(connection: Connection) -> list[Mapping[str, Any]]:
    """Return queued and running runs, oldest first.

    They are put in order here: asked for in order of ids, SQLite would read the whole table.
    """
    rows = connection.execute(select(runs).where(runs.c.finished_at.is_(None))).mappings()
    return sorted(map(dict, rows), key=itemgetter("id"))


def number_running(connection: Connection) -> int:
    """Return how many runs are at work, in whichever process."""
    query = select(func.count()).where(runs.c.finished_at.is_(None), runs.c.state == RunState.RUNNING)
    return int(connection.execute(query).scalar_one())


def tokens_used(connection: Connection, job: str, *, since: datetime) -> int:
    """Return how many tokens, in and out, the requests of a job's runs have used from `since` on."""
    spent = func.coalesce(attempts.c.input_tokens, 0) + func.coalesce(attempts.c.output_tokens, 0)
    query = (
        select(func.coalesce(func.sum(spent), 0))
        .join_from(attempts, runs, attempts.c.run_id == runs.c.id)
        .where(runs.c.job == job, attempts.c.started_at >= since)
    )
    return int(connection.execute(query).scalar_one())
