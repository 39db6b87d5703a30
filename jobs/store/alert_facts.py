"""What alerts are judged by: jobs that fail or are held, what is closed, logins, what was abandoned."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from jobs.alert import AlertKind
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.run import COUNTING_TRIGGERS, FAILED_STATES, RunState, Trigger
from jobs.store import tokens
from jobs.store.alerts import ABOUT, About, Standing
from jobs.store.tables import alerts, attempts, credentials, instances, jobs, marks, runs
from jobs.store.tokens import SealedTokens

_UNHEARD = (Trigger.DRILL, Trigger.ASK)
_ENDS = (*FAILED_STATES, RunState.SUCCEEDED)


@dataclass(frozen=True, slots=True)
class FailingJob:
    """A job with failed runs in a row, and whether it is paused."""

    name: str
    failures: int
    paused: bool = False


@dataclass(frozen=True, slots=True)
class HeldJobs:
    """The jobs for which the same closed credentials are known: `held` of them are held, the last until then.

    Those that are not held any more have not asked since, so nobody knows better.
    """

    hold_key: str
    held: int
    until: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ClosedCredential:
    """A mark of which people are told; `earned_by` is the credential whose attempt made it.

    `said` is what the provider answered to that attempt. `replaced`: the marked secret is not today's.
    """

    provider: str
    scope: Scope
    credential: str | None
    quota_group: str | None
    base_url: str | None
    model: str | None
    error_class: ErrorClass
    code: str | None
    until: datetime | None
    made_at: datetime
    attempt_id: int
    earned_by: str
    said: str | None = None
    http_status: int | None = None
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class AbandonedRun:
    """A run whose process has gone, and of which nobody has been told."""

    id: int
    job: str
    scheduled_for: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What alerts are judged by, as of one moment; `newest` is the id of the newest alert then."""

    failing: tuple[FailingJob, ...] = ()
    held: tuple[HeldJobs, ...] = ()
    closed: tuple[ClosedCredential, ...] = ()
    logins: tuple[SealedTokens, ...] = ()
    abandoned: tuple[AbandonedRun, ...] = ()
    open: tuple[Standing, ...] = ()
    newest: int = 0


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The newest run of a job that succeeded or failed."""

    id: int
    scheduled_for: datetime
    finished_at: datetime
    state: RunState
    reason: str | None
    message: str | None
    provider: str | None
    model: str | None


_FAILING = select(jobs.c.name, jobs.c.consecutive_failures, jobs.c.paused_at).where(
    jobs.c.consecutive_failures > literal_column("0")
)
_HELD = (
    select(
        jobs.c.hold_key,
        func.count(jobs.c.held_until).label("held"),
        func.max(jobs.c.held_until).label("until"),
        func.max(jobs.c.hold_reason).label("reason"),
    )
    .where(jobs.c.hold_key.is_not(None))
    .group_by(jobs.c.hold_key)
)
_OF_MARKS = ("provider", "scope", "credential", "quota_group", "base_url", "model", "error_class")
_CLOSED = (
    select(
        *(marks.c[name] for name in (*_OF_MARKS, "code", "until", "made_at", "attempt_id")),
        attempts.c.credential.label("earned_by"),
        attempts.c.message.label("said"),
        attempts.c.http_status,
        func.coalesce(marks.c.fingerprint != credentials.c.fingerprint, False).label("replaced"),
    )
    .join_from(marks, attempts, attempts.c.id == marks.c.attempt_id)
    .outerjoin(
        credentials,
        and_(credentials.c.provider == marks.c.provider, credentials.c.label == marks.c.credential),
    )
    .where(
        or_(
            marks.c.error_class.in_((ErrorClass.AUTH_DEAD, ErrorClass.QUOTA_BILLING)),
            and_(marks.c.error_class == ErrorClass.AUTH, marks.c.until.is_(None)),
        )
    )
    .order_by(marks.c.id)
)
_OPEN = select(
    alerts.c.id, *(alerts.c[name] for name in (*ABOUT, "opened_at", "told_at", "reminders", "message"))
).where(alerts.c.resolved_at.is_(None))
_NEWEST = select(func.coalesce(func.max(alerts.c.id), 0))


def facts(connection: Connection, *, since: datetime) -> Facts:
    """Return what alerts are judged by; of abandoned runs those that ended after `since`.

    Put in order here: asked for in order of ids, SQLite would read whole tables.
    """
    abandoned = (AbandonedRun(**row._mapping) for row in connection.execute(_abandoned(since)))
    standing = (_standing(row) for row in connection.execute(_OPEN).mappings())
    return Facts(
        failing=tuple(
            FailingJob(row.name, row.consecutive_failures, row.paused_at is not None)
            for row in connection.execute(_FAILING)
        ),
        held=tuple(HeldJobs(**row._mapping) for row in connection.execute(_HELD)),
        closed=tuple(_closed(row) for row in connection.execute(_CLOSED).mappings()),
        logins=tuple(tokens.every(connection)),
        abandoned=tuple(sorted(abandoned, key=attrgetter("id"))),
        open=tuple(sorted(standing, key=attrgetter("id"))),
        newest=connection.execute(_NEWEST).scalar_one(),
    )


def _abandoned(since: datetime) -> Select[Any]:
    """Return the query of abandoned runs; the state is written out as its index has it."""
    told = exists().where(alerts.c.run_id == runs.c.id, alerts.c.kind == AlertKind.RUN_ABANDONED)
    return select(runs.c.id, runs.c.job, runs.c.scheduled_for, runs.c.finished_at).where(
        runs.c.state == literal_column(f"'{RunState.ABANDONED}'"),
        runs.c.finished_at > since,
        runs.c.trigger.not_in(_UNHEARD),
        ~told,
    )


def _closed(row: RowMapping) -> ClosedCredential:
    known = {"scope": Scope(row["scope"]), "error_class": ErrorClass(row["error_class"])}
    return ClosedCredential(**{**row, **known})


def _standing(row: RowMapping) -> Standing:
    about = About(**{name: row[name] for name in ABOUT} | {"kind": AlertKind(row["kind"])})
    return Standing(row["id"], about, row["opened_at"], row["told_at"], row["reminders"], row["message"])


def newest_ends(connection: Connection, names: Collection[str]) -> dict[str, EndedRun]:
    """Return the newest run of each job that counts towards its failures in a row, by job."""
    found = {}
    for name in names:
        row = connection.execute(_NEWEST_END, {"of_job": name}).mappings().one_or_none()
        if row is not None:
            found[name] = EndedRun(**{**row, "state": RunState(row["state"])})
    return found


_NEWEST_END = (
    select(
        *(runs.c.id, runs.c.scheduled_for, runs.c.finished_at, runs.c.state, runs.c.reason),
        runs.c.error_message.label("message"),
        runs.c.requested_provider.label("provider"),
        runs.c.requested_model.label("model"),
    )
    .where(runs.c.job == bindparam("of_job"), runs.c.trigger.in_(COUNTING_TRIGGERS), runs.c.state.in_(_ENDS))
    .order_by(runs.c.id.desc())
    .limit(1)
)


def held_by(connection: Connection, hold_keys: Collection[str], *, at_most: int) -> list[str]:
    """Return the first jobs, in order of their names, that are held for one of these reasons."""
    query = select(jobs.c.name).where(jobs.c.hold_key.in_(hold_keys), jobs.c.held_until.is_not(None))
    return list(connection.execute(query.order_by(jobs.c.name).limit(at_most)).scalars())


def another_daemon_worked(connection: Connection, instance_id: int, *, since: datetime) -> bool:
    """Say whether another daemon has worked on this database since then, though it may be down now."""
    query = select(instances.c.id).where(
        instances.c.kind == "daemon", instances.c.id != instance_id, instances.c.heartbeat_at > since
    )
    newest = query.order_by(instances.c.id.desc()).limit(1)
    return connection.execute(newest).scalar_one_or_none() is not None
