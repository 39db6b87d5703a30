"""Opening and settling attempts: verbs that choose, write and mark in one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from jobs.alert import AlertKind
from jobs.attempt import Attempt, Purpose, Step, Wait
from jobs.credential import Readable, Strategy, Unreadable
from jobs.errors import AttributionRefused, ErrorClass
from jobs.mark import DEFAULT_SOURCE, Mark, NewMark
from jobs.providers.answer import WaitHint
from jobs.providers.pool import Habits, ordered
from jobs.providers.recovery import RECOVERY
from jobs.providers.registry import Provider
from jobs.providers.resolve import PassedOver, Resolved, resolve_runtime_provider
from jobs.providers.vault import Vault
from jobs.request import Usage
from jobs.run import PaidAnswer
from jobs.store import alerts, attempts, credentials, holds, runs, tokens
from jobs.store.alerts import About
from jobs.store.attempts import Failure, Place
from jobs.target import Target


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt that is committed as `sent`: its request may leave."""

    attempt: Attempt
    readable: Readable


@dataclass(frozen=True, slots=True)
class NeedsRefresh:
    """The chosen login must be refreshed first; nothing was written."""

    readable: Readable


@dataclass(frozen=True, slots=True)
class Settled:
    """What was written about a failed attempt: what is done next, and the mark it earned, if any."""

    attempt: Attempt
    step: Step
    mark: Mark | None = None
    refused_attribution: str | None = None


def choose(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    target: Target,
    *,
    habits: Habits = Habits(),
    now: datetime,
) -> Resolved | PassedOver:
    """Resolve a target from its provider's credentials and marks as they stand; keeps their rows in step."""
    return resolved(connection, vault.open(connection, provider, now=now), provider, target, habits, now)


def resolved(
    connection: Connection,
    opened: Sequence[Readable | Unreadable],
    provider: Provider,
    target: Target,
    habits: Habits,
    now: datetime,
) -> Resolved | PassedOver:
    """Resolve a target from credentials that were opened already; writes nothing."""
    readable = [each for each in opened if isinstance(each, Readable)]
    counts = len(readable) > 1 and provider.strategy in (Strategy.ROUND_ROBIN, Strategy.LEAST_USED)
    used = attempts.uses(connection, provider.name) if counts else {}
    return resolve_runtime_provider(
        target,
        credentials=[
            *ordered(readable, provider.strategy, used),
            *(each for each in opened if isinstance(each, Unreadable)),
        ],
        marks=credentials.marks_of(connection, provider.name),
        habits=habits,
        now=now,
    )


def looked_at(
    connection: Connection, vault: Vault, provider: Provider, target: Target, habits: Habits, now: datetime
) -> Resolved | PassedOver:
    """Resolve a target as `choose` does, and write nothing."""
    return resolved(connection, vault.look(connection, provider, now=now), provider, target, habits, now)


def open_attempt(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    target: Target,
    place: Place,
    *,
    habits: Habits,
    refreshes: Callable[[str], bool],
    wait: Wait,
    recovery: Callable[[ErrorClass], Step] | None,
    now: datetime,
) -> Opened | NeedsRefresh | PassedOver:
    """Resolve a target and commit the attempt, or the reason why it is passed over.

    `recovery` says what follows a target that is passed over; None when it was asked before and has only
    run out of credentials, which is no passing over. `refreshes` says of a stale login's label whether it
    is to be refreshed first.
    """
    resolution = choose(connection, vault, provider, target, habits=habits, now=now)
    if isinstance(resolution, PassedOver):
        return _passed_over(connection, place, target, resolution, wait, recovery, now)
    readable = resolution.readable
    if readable.stale and refreshes(readable.credential.label):
        return NeedsRefresh(readable)
    return Opened(_sent(connection, place, target, readable, target.base_url, wait, now), readable)


def pass_over_closed(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    target: Target,
    place: Place,
    *,
    habits: Habits,
    wait: Wait,
    recovery: Callable[[ErrorClass], Step] | None,
    now: datetime,
) -> PassedOver | None:
    """Pass over a target that is closed, as `open_attempt` does; write nothing when it is open."""
    resolution = choose(connection, vault, provider, target, habits=habits, now=now)
    if not isinstance(resolution, PassedOver):
        return None
    return _passed_over(connection, place, target, resolution, wait, recovery, now)


def _passed_over(
    connection: Connection,
    place: Place,
    target: Target,
    passed: PassedOver,
    wait: Wait,
    recovery: Callable[[ErrorClass], Step] | None,
    now: datetime,
) -> PassedOver:
    if recovery is not None:
        pass_over(connection, place, target, passed, recovery(passed.error_class), wait, now)
    return passed


def pass_over(
    connection: Connection,
    place: Place,
    target: Target,
    passed: PassedOver,
    recovery: Step,
    wait: Wait,
    now: datetime,
) -> None:
    """Write that a target is not asked, why, what follows, and what was waited before."""
    attempts.insert_passed_over(
        connection,
        place,
        target,
        error_class=passed.error_class,
        message=passed.message,
        code=passed.code,
        recovery=recovery,
        wait=wait,
        now=now,
    )


def _sent(
    connection: Connection,
    place: Place,
    target: Target,
    readable: Readable,
    base_url: str,
    wait: Wait,
    now: datetime,
) -> Attempt:
    attempt_id = attempts.insert_sent(
        connection, place, target, readable.credential, base_url=base_url, wait=wait, now=now
    )
    return Attempt(
        id=attempt_id,
        target=target,
        target_index=place.target_index,
        credential=readable.credential,
        purpose=place.purpose,
        base_url=base_url,
        api_mode=target.api_mode,
        started_at=now,
        secret=readable.secret,
        fingerprint=readable.fingerprint,
        account_id=readable.account_id,
    )


def settle_success(
    connection: Connection,
    attempt: Attempt,
    *,
    usage: Usage = Usage(),
    http_status: int,
    request_id: str | None,
    latency: float,
    marks: bool = True,
    paid: PaidAnswer | None = None,
) -> None:
    """Write a good answer, and lift what it disproves, unless it was a drill's. `latency` in seconds.

    What was paid for stands in its run from here on: a crash before the run's end does not lose it.
    """
    attempts.settle_succeeded(
        connection, attempt, usage=usage, http_status=http_status, request_id=request_id, latency=latency
    )
    if paid is not None:
        runs.keep_answer(connection, paid)
    if marks and credentials.clear_by_success(connection, attempt):
        holds.open_up(
            connection, [(attempt.target.provider, attempt.credential.label)], now=attempt.started_at
        )


def settle_failure(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    attempt: Attempt,
    failure: Failure,
    *,
    wait: WaitHint | None,
    chosen: Step,
    onward: Step,
    habits: Habits,
    now: datetime,
    marks: bool = True,
) -> Settled:
    """Write a failure, the mark it earned and what is done next, together.

    Another credential is only next where one is open after the mark; else `onward` is. Without `marks`
    nobody is blamed: it was a drill.
    """
    mark, refusal = None, None
    if marks and chosen not in (Step.RETRY, Step.REFRESH, Step.COMPRESS):
        mark, refusal = _mark(connection, attempt, failure, wait, now)
    step = chosen
    if chosen is Step.NEXT_CREDENTIAL:
        another = choose(connection, vault, provider, attempt.target, habits=habits, now=now)
        step = Step.NEXT_CREDENTIAL if isinstance(another, Resolved) else onward
    elif chosen is Step.NEXT_TARGET:
        step = onward
    attempts.settle_failed(connection, attempt, failure, recovery=step)
    return Settled(attempt, step, mark, refusal)


def record_unsent(
    connection: Connection,
    vault: Vault,
    provider: Provider,
    target: Target,
    place: Place,
    readable: Readable,
    failure: Failure,
    *,
    onward: Step,
    habits: Habits,
    now: datetime,
    marks: bool = True,
) -> Settled:
    """Write a refresh that could not be asked for, as the failed attempt that earns its credential's mark.

    It earns none where another has brought a newer token by now: that proves that the login can be used.
    """
    oauth = readable.credential.oauth
    base_url = oauth.token_url if oauth else target.base_url
    refresh = Place(place.run_id, place.tries, Purpose.REFRESH, place.target_index)
    attempt = _sent(connection, refresh, target, readable, base_url, Wait(), now)
    return settle_failure(
        connection,
        vault,
        provider,
        attempt,
        failure,
        wait=None,
        chosen=Step.NEXT_CREDENTIAL,
        onward=onward,
        habits=habits,
        now=now,
        marks=marks and not tokens.was_replaced(connection, readable),
    )


def _mark(
    connection: Connection, attempt: Attempt, failure: Failure, wait: WaitHint | None, now: datetime
) -> tuple[Mark | None, str | None]:
    row = RECOVERY[failure.error_class]
    if row.scope is None:
        return None, None
    before = attempts.failures_in_a_row(connection, attempt, at_most=row.marks_after - 1)
    if before + 1 < row.marks_after:
        return None, None
    stated = wait if row.believes_hint else None
    earned = NewMark(
        row.scope,
        failure.error_class,
        row.ladder,
        stated=stated.until if stated else None,
        source=stated.source if stated else DEFAULT_SOURCE,
        code=failure.code,
        lasts_from_step=row.lasts_from_step,
        climbs=not (row.heals and attempt.purpose is Purpose.PROBE),
    )
    try:
        return credentials.mark(connection, attempt, earned, now=now), None
    except AttributionRefused as exc:
        about = About(AlertKind.ATTRIBUTION_REFUSED, f"{AlertKind.ATTRIBUTION_REFUSED}:{attempt.id}")
        alerts.write_down(connection, about, str(exc), now=now)
        return None, str(exc)
