"""Attempts in the ledger: committed as `sent` before a request leaves, settled together with their mark."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from jobs.attempt import Attempt, AttemptOutcome, Purpose, Step, Wait
from jobs.credential import Credential, Use
from jobs.errors import ErrorClass, FenceLost
from jobs.request import Usage
from jobs.run import RunState
from jobs.store.tables import attempts, credentials, runs
from jobs.target import Target

LONGEST_MESSAGE = 200
DRILL_RULE = "drill"
_USES_ARE_COUNTED_OVER = 1_000
_COUNTED_ON_ENDPOINT = (
    ErrorClass.SERVER_ERROR,
    ErrorClass.TIMEOUT,
    ErrorClass.CONNECTION,
    ErrorClass.INVALID_RESPONSE,
)

# Statements of every request are built once: to build one takes several times as long as to run it.
_NEXT_ORDINAL = (
    select(func.coalesce(func.max(attempts.c.ordinal), 0) + 1)
    .where(attempts.c.run_id == bindparam("of_run"))
    .scalar_subquery()
)
_AT_WORK = select(runs.c.id).where(
    runs.c.id == bindparam("of_run"),
    runs.c.tries == bindparam("of_try"),
    runs.c.state.in_((RunState.RUNNING, RunState.SUCCEEDED)),
)
_INSERT = insert(attempts).values(ordinal=_NEXT_ORDINAL).returning(attempts.c.id)
_SETTLE = update(attempts).where(
    attempts.c.id == bindparam("of_attempt"), attempts.c.outcome == AttemptOutcome.SENT
)
_UNHEARD = (
    update(attempts).where(attempts.c.outcome == AttemptOutcome.SENT).values(outcome=AttemptOutcome.UNKNOWN)
)
_UNHEARD_OF_RUN = _UNHEARD.where(attempts.c.run_id == bindparam("of_run"))
_TOKENS = select(func.sum(attempts.c.input_tokens), func.sum(attempts.c.output_tokens)).where(
    attempts.c.run_id == bindparam("of_run")
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attempt stands: its run (None outside runs), the run's try, and its place in the chain."""

    run_id: int | None
    tries: int
    purpose: Purpose
    target_index: int


def insert_sent(
    connection: Connection,
    place: Place,
    target: Target,
    credential: Credential,
    *,
    base_url: str,
    wait: Wait,
    now: datetime,
) -> int:
    """Write that a request is about to leave; return the attempt's id."""
    return _insert(
        connection,
        place,
        target,
        base_url=base_url,
        credential=credential.label,
        quota_group=credential.quota_group,
        outcome=AttemptOutcome.SENT,
        waited=wait.seconds,
        wait_reason=wait.reason,
        started_at=now,
    )


def insert_passed_over(
    connection: Connection,
    place: Place,
    target: Target,
    *,
    error_class: ErrorClass,
    message: str,
    code: str | None,
    recovery: Step,
    wait: Wait,
    now: datetime,
) -> int:
    """Write that a target was not asked, and why; return the attempt's id."""
    return _insert(
        connection,
        place,
        target,
        base_url=target.base_url,
        outcome=AttemptOutcome.PASSED_OVER,
        error_class=error_class,
        code=code,
        message=message[:LONGEST_MESSAGE],
        recovery=recovery,
        waited=wait.seconds,
        wait_reason=wait.reason,
        started_at=now,
    )


def _run_at_work(connection: Connection, place: Place) -> int | None:
    """Return the run that an attempt belongs to, None for a refresh that its run has not waited for.

    Raises FenceLost for anything else of a try that is over: a process that was stopped for long, and has
    lost its runs meanwhile, sends nothing more for them. After a success its title is sought.
    """
    if place.run_id is None:
        return None
    fence = {"of_run": place.run_id, "of_try": place.tries}
    if connection.execute(_AT_WORK, fence).one_or_none() is not None:
        return place.run_id
    if place.purpose is Purpose.REFRESH:
        return None
    raise FenceLost(f"run {place.run_id} has ended already, or another try of it has begun")


def _insert(connection: Connection, place: Place, target: Target, **values: Any) -> int:
    run_id = _run_at_work(connection, place)
    row = {
        "run_id": run_id,
        "try": place.tries,
        "purpose": place.purpose,
        "target_index": place.target_index,
        "provider": target.provider,
        "model": target.model,
        **values,
    }
    return int(connection.execute(_INSERT, {**row, "of_run": run_id}).scalar_one())


def settle_succeeded(
    connection: Connection,
    attempt: Attempt,
    *,
    usage: Usage,
    http_status: int,
    request_id: str | None,
    latency: float,
) -> None:
    """Write that an attempt was answered well; `latency` in seconds."""
    said = {
        "outcome": AttemptOutcome.SUCCEEDED,
        "http_status": http_status,
        "request_id": request_id,
        "latency": latency,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    connection.execute(_SETTLE, {**said, "of_attempt": attempt.id})


@dataclass(frozen=True, slots=True)
class Failure:
    """What an attempt came to, as it is stored: no body, no secret, at most 200 characters of message.

    `retry_after` is in seconds from the answer, None where the provider named no time.
    """

    error_class: ErrorClass
    rule: str
    message: str
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
    latency: float | None = None


def settle_failed(connection: Connection, attempt: Attempt, failure: Failure, *, recovery: Step) -> None:
    """Write an attempt's failure and what is done next."""
    said = {
        "outcome": AttemptOutcome.FAILED,
        "error_class": failure.error_class,
        "rule": failure.rule,
        "code": failure.code,
        "message": failure.message[:LONGEST_MESSAGE],
        "http_status": failure.http_status,
        "request_id": failure.request_id,
        "retry_after": failure.retry_after,
        "latency": failure.latency,
        "recovery": recovery,
    }
    connection.execute(_SETTLE, {**said, "of_attempt": attempt.id})


def uses(connection: Connection, provider: str) -> dict[str, Use]:
    """Return how a provider's credentials were used, by label: over the ledger's newest 1,000 attempts."""
    newest = select(func.coalesce(func.max(attempts.c.id), 0)).scalar_subquery()
    rows = connection.execute(
        select(attempts.c.credential, func.count(), func.max(attempts.c.id))
        .where(
            attempts.c.provider == provider,
            attempts.c.credential.is_not(None),
            attempts.c.purpose != Purpose.REFRESH,
            attempts.c.id > newest - _USES_ARE_COUNTED_OVER,
        )
        .group_by(attempts.c.credential)
    )
    return {label: Use(requests, last) for label, requests, last in rows}


def amend_recovery(connection: Connection, run_id: int, recovery: Step) -> None:
    """Say what really came after a run's newest attempt: it is known only once its whole chain has failed."""
    newest = select(func.max(attempts.c.id)).where(
        attempts.c.run_id == run_id,
        attempts.c.purpose.in_((Purpose.MAIN, Purpose.PROBE, Purpose.REFRESH)),
        attempts.c.recovery == Step.STOP,
    )
    connection.execute(
        update(attempts).where(attempts.c.id == newest.scalar_subquery()).values(recovery=recovery)
    )


def failures_in_a_row(connection: Connection, attempt: Attempt, *, at_most: int) -> int:
    """Count how many of the endpoint's newest settled requests failed in a way that is counted on it.

    What was sent before an operator's reset of the provider does not count, nor what only a drill made fail.
    """
    if at_most <= 0:
        return 0
    reset_at = (
        select(func.max(credentials.c.reset_at))
        .where(credentials.c.provider == attempt.target.provider)
        .scalar_subquery()
    )
    classes = connection.execute(
        select(attempts.c.error_class)
        .where(
            attempts.c.provider == attempt.target.provider,
            attempts.c.base_url == attempt.base_url,
            attempts.c.outcome.in_((AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED)),
            attempts.c.rule.is_distinct_from(DRILL_RULE),
            or_(reset_at.is_(None), attempts.c.started_at > reset_at),
        )
        .order_by(attempts.c.id.desc())
        .limit(at_most)
    ).scalars()
    count = 0
    for error_class in classes:
        if error_class not in _COUNTED_ON_ENDPOINT:
            break
        count += 1
    return count


def tokens_of(connection: Connection, run_id: int) -> dict[str, int | None]:
    """Return what the attempts of a run have used in all, by the names of the run's columns."""
    row = connection.execute(_TOKENS, {"of_run": run_id}).one()
    return {"input_tokens": row[0], "output_tokens": row[1]}


def hear_no_more(connection: Connection, which: ColumnElement[bool]) -> None:
    """Settle attempts that are still `sent`: their answers will not come, and may have been paid for."""
    connection.execute(_UNHEARD.where(which))


def hear_no_more_of(connection: Connection, run_id: int) -> None:
    """Settle a run's attempts that are still `sent`, as `hear_no_more` does."""
    connection.execute(_UNHEARD_OF_RUN, {"of_run": run_id})
