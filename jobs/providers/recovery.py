"""What is done about each error class: one table, and the pure function that reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from jobs.attempt import Step
from jobs.errors import ErrorClass
from jobs.mark import Scope

MOST_TARGETS = 5
MOST_REQUESTS = 12
LONGEST_HINT_TO_WAIT_FOR = timedelta(seconds=10)
ENDPOINT_FAILURES_IN_A_ROW = 3
LONGEST_STATED_WINDOW = timedelta(days=8)

_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)


class Onward(StrEnum):
    """Whether the chain goes on to its next target when nothing more can be done at this one."""

    ALWAYS = "always"
    OTHER_PROVIDER = "other_provider"
    IF_JOB_ALLOWS = "if_job_allows"
    LARGER_CONTEXT = "larger_context"


@dataclass(frozen=True, slots=True)
class Recovery:
    """A row of the table: what is tried, in order, and what is marked.

    `again` more requests go to the same credential, each after the next of `delays`. `scope` None marks
    nothing. `marks_after` failures of the endpoint in a row are needed before a mark is made. `shrinks`
    makes the request smaller, where the job has it so. `heals`: time alone opens what is marked, so it is
    worth waiting for; what is not named so needs somebody to mend it.
    """

    again: int = 0
    delays: tuple[timedelta, ...] = ()
    waits_for_hint: bool = False
    refreshes: bool = False
    rotates: bool = False
    onward: Onward = Onward.ALWAYS
    scope: Scope | None = None
    ladder: tuple[timedelta, ...] = ()
    believes_hint: bool = False
    lasts_from_step: int | None = None
    marks_after: int = 1
    needs_repeat_safe: bool = False
    shrinks: bool = False
    heals: bool = False


_ENDPOINT_LADDER = (timedelta(seconds=15), _MINUTE)
_BACKOFF = tuple(timedelta(seconds=s) for s in (0.5, 1, 2, 4, 8))
_RATE_LADDER = (timedelta(seconds=30), _MINUTE, 5 * _MINUTE)
_BILLING_LADDER = tuple(hours * _HOUR for hours in (1, 2, 4, 8, 16, 24))

RECOVERY: Mapping[ErrorClass, Recovery] = MappingProxyType(
    {
        ErrorClass.CONFIG_ERROR: Recovery(onward=Onward.IF_JOB_ALLOWS),
        ErrorClass.AUTH: Recovery(
            refreshes=True, rotates=True, scope=Scope.CREDENTIAL, ladder=(5 * _MINUTE,), lasts_from_step=2
        ),
        ErrorClass.AUTH_DEAD: Recovery(
            refreshes=True, rotates=True, scope=Scope.CREDENTIAL, ladder=(_HOUR,), lasts_from_step=1
        ),
        ErrorClass.AUTH_UNAVAILABLE: Recovery(
            heals=True, rotates=True, scope=Scope.CREDENTIAL, ladder=(_MINUTE,)
        ),
        ErrorClass.PERMISSION: Recovery(rotates=True, scope=Scope.CREDENTIAL_MODEL, ladder=(5 * _MINUTE,)),
        ErrorClass.RATE_LIMIT: Recovery(
            heals=True,
            again=1,
            waits_for_hint=True,
            rotates=True,
            scope=Scope.GROUP_MODEL,
            ladder=_RATE_LADDER,
            believes_hint=True,
        ),
        ErrorClass.RATE_LIMIT_UPSTREAM: Recovery(
            heals=True, scope=Scope.ENDPOINT_MODEL, ladder=_RATE_LADDER, believes_hint=True
        ),
        ErrorClass.QUOTA_WINDOW: Recovery(
            heals=True, rotates=True, scope=Scope.GROUP, ladder=(_HOUR,), believes_hint=True
        ),
        ErrorClass.QUOTA_BILLING: Recovery(
            heals=True, rotates=True, scope=Scope.GROUP, ladder=_BILLING_LADDER
        ),
        ErrorClass.OVERLOADED: Recovery(
            heals=True, again=2, delays=_BACKOFF, scope=Scope.ENDPOINT_MODEL, ladder=_ENDPOINT_LADDER
        ),
        ErrorClass.SERVER_ERROR: Recovery(
            heals=True,
            again=2,
            delays=_BACKOFF,
            scope=Scope.ENDPOINT,
            ladder=_ENDPOINT_LADDER,
            marks_after=ENDPOINT_FAILURES_IN_A_ROW,
        ),
        ErrorClass.TIMEOUT: Recovery(
            heals=True,
            again=1,
            needs_repeat_safe=True,
            scope=Scope.ENDPOINT,
            ladder=_ENDPOINT_LADDER,
            marks_after=ENDPOINT_FAILURES_IN_A_ROW,
        ),
        ErrorClass.CONNECTION: Recovery(
            heals=True,
            again=1,
            delays=_BACKOFF,
            scope=Scope.ENDPOINT,
            ladder=_ENDPOINT_LADDER,
            marks_after=ENDPOINT_FAILURES_IN_A_ROW,
        ),
        ErrorClass.INVALID_RESPONSE: Recovery(
            heals=True,
            again=1,
            scope=Scope.ENDPOINT,
            ladder=_ENDPOINT_LADDER,
            marks_after=ENDPOINT_FAILURES_IN_A_ROW,
        ),
        ErrorClass.CONTEXT_OVERFLOW: Recovery(shrinks=True, onward=Onward.LARGER_CONTEXT),
        ErrorClass.PAYLOAD_TOO_LARGE: Recovery(shrinks=True, onward=Onward.LARGER_CONTEXT),
        ErrorClass.CONTENT_FILTER: Recovery(onward=Onward.IF_JOB_ALLOWS),
        ErrorClass.MODEL_NOT_FOUND: Recovery(scope=Scope.CREDENTIAL_MODEL, ladder=(_HOUR,)),
        ErrorClass.ENTITLEMENT: Recovery(scope=Scope.CREDENTIAL_MODEL, ladder=(24 * _HOUR,)),
        ErrorClass.POLICY_BLOCKED: Recovery(),
        ErrorClass.BAD_REQUEST: Recovery(onward=Onward.OTHER_PROVIDER),
        ErrorClass.UNKNOWN: Recovery(
            heals=True, again=1, scope=Scope.CREDENTIAL_MODEL, ladder=(timedelta(seconds=30),)
        ),
    }
)


TOO_LONG = frozenset(each for each, row in RECOVERY.items() if row.shrinks)


@dataclass(slots=True)
class Visit:
    """What has been spent at one target: a fresh one for each, so no target pays for another.

    `refused` holds labels that this run will not use again, `refused_groups` quota groups; `refreshed`
    labels whose one refresh is spent. `same` is the label that the next request is to use again, if it can.
    """

    again: dict[ErrorClass, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    refused_groups: set[str] = field(default_factory=set)
    same: str | None = None
    refreshed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the table's answer depends on, besides the class.

    `hint` is how long the provider asks to wait; `left` how long the deadline still allows;
    `requests_left` what the budget still allows; `verifiable` is False for a certificate that does not
    verify, which no second request mends. `may_retry` is what the provider says of it, `may_shrink` whether
    the request can still be made smaller.
    """

    label: str
    quota_group: str
    left: timedelta
    requests_left: int
    can_refresh: bool = False
    repeat_safe: bool = False
    verifiable: bool = True
    may_retry: bool = True
    may_shrink: bool = False
    hint: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """A step, and how long to wait before it."""

    step: Step
    delay: timedelta = timedelta(0)
    reason: str | None = None


def next_at_target(error_class: ErrorClass, visit: Visit, now: Situation, *, jitter: float) -> Next:
    """Say what follows a failure as far as this target goes: retry, refresh, another credential, or leave.

    Leaving is `next_target`; whether there is one to go to, `goes_on` says. `jitter` in 0…1 spreads
    the backoff over its upper half. Notes in `visit` what it grants.
    """
    row = RECOVERY[error_class]
    if now.requests_left <= 0:
        return Next(Step.NEXT_TARGET)
    if row.refreshes and now.can_refresh and now.label not in visit.refreshed:
        visit.refreshed.add(now.label)
        visit.same = now.label
        return Next(Step.REFRESH)
    if row.shrinks and now.may_shrink:
        visit.same = now.label
        return Next(Step.COMPRESS)
    retry = _retry(error_class, row, visit, now, jitter)
    if retry is not None:
        visit.again[error_class] = visit.again.get(error_class, 0) + 1
        visit.same = now.label
        return retry
    visit.same = None
    visit.refused.add(now.label)
    if row.scope is not None and row.scope.on_group:
        visit.refused_groups.add(now.quota_group)
    return Next(Step.NEXT_CREDENTIAL if row.rotates else Step.NEXT_TARGET)


def _retry(
    error_class: ErrorClass, row: Recovery, visit: Visit, now: Situation, jitter: float
) -> Next | None:
    spent = visit.again.get(error_class, 0)
    if not (now.may_retry and now.verifiable):
        return None
    if spent >= row.again or (row.needs_repeat_safe and not now.repeat_safe):
        return None
    if row.waits_for_hint:
        hint = now.hint
        if hint is None or hint > LONGEST_HINT_TO_WAIT_FOR or hint >= now.left:
            return None
        return Next(Step.RETRY, hint, "the provider asked to wait")
    if not row.delays:
        return Next(Step.RETRY)
    delay = row.delays[min(spent, len(row.delays) - 1)] * (0.5 + jitter / 2)
    if now.hint is not None and now.hint <= LONGEST_HINT_TO_WAIT_FOR:
        delay = max(delay, now.hint)
    return Next(Step.RETRY, delay, "backoff") if delay < now.left else None


def goes_on(
    error_class: ErrorClass, *, allowed: frozenset[ErrorClass], other_provider: bool, larger_context: bool
) -> bool:
    """Say whether a target left for this class may be followed by the next one of the chain.

    `allowed` is the job's `fallback_on`; `other_provider` whether the next target is another provider's,
    `larger_context` whether it says so of itself.
    """
    if error_class in allowed:
        return True
    match RECOVERY[error_class].onward:
        case Onward.ALWAYS:
            return True
        case Onward.OTHER_PROVIDER:
            return other_provider
        case Onward.IF_JOB_ALLOWS:
            return False
        case Onward.LARGER_CONTEXT:
            return larger_context
