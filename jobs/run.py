"""A run: one due instant of one job, its states, and the ways it can end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

from jobs.delivery_state import Deliver
from jobs.errors import ErrorClass
from jobs.request import Usage


class RunState(StrEnum):
    """Where a run stands. Rows only move forward, and a final row never changes."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"
    ABANDONED = "abandoned"


class Concurrency(StrEnum):
    """What becomes of an instant that falls due while a run of its job has not ended."""

    FORBID = "forbid"
    ALLOW = "allow"
    QUEUE = "queue"
    REPLACE = "replace"


OPEN_STATES = (RunState.QUEUED, RunState.RUNNING)
FINAL_STATES = tuple(state for state in RunState if state not in OPEN_STATES)
FAILED_STATES = (RunState.FAILED, RunState.TIMED_OUT, RunState.ABANDONED)
"""The ends that count as failures in a row."""


class Trigger(StrEnum):
    """What made a run."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    AFTER = "after"
    RETRY = "retry"
    MANUAL = "manual"
    ASK = "ask"
    DRILL = "drill"


SCHEDULED_TRIGGERS = (Trigger.SCHEDULE, Trigger.CATCH_UP)
COUNTING_TRIGGERS = (*SCHEDULED_TRIGGERS, Trigger.AFTER)
"""Whose runs count towards `max_runs` and the failures in a row."""

BY_HAND = (Trigger.MANUAL, Trigger.ASK, Trigger.DRILL)


class Reason(StrEnum):
    """Why a run ended as it did, where no error class says it."""

    CONDITION = "condition"
    GATHER = "gather"
    TEMPLATE = "template"
    COMPRESSION = "compression"
    TRUNCATED = "truncated"
    SCHEMA = "schema"
    INTERNAL = "internal"
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    REPLACED = "replaced"
    OVERLAP = "overlap"
    PAUSED = "paused"
    HELD = "held"
    BUDGET = "budget"
    LATE = "late"
    COALESCED = "coalesced"
    WINDOW = "window"
    CATCH_UP_NONE = "catch_up_none"
    CATCH_UP_CAP = "catch_up_cap"
    PROCESS_GONE = "process_gone"


REASONS: Mapping[RunState, frozenset[str]] = MappingProxyType(
    {
        RunState.FAILED: frozenset(ErrorClass)
        | {
            *(Reason.CONDITION, Reason.GATHER, Reason.TEMPLATE, Reason.COMPRESSION),
            *(Reason.TRUNCATED, Reason.SCHEMA, Reason.INTERNAL),
        },
        RunState.TIMED_OUT: frozenset({ErrorClass.TIMEOUT}),
        RunState.CANCELLED: frozenset({Reason.OPERATOR, Reason.SHUTDOWN, Reason.REPLACED}),
        RunState.SKIPPED: frozenset(
            {Reason.OVERLAP, Reason.PAUSED, Reason.HELD, Reason.BUDGET, Reason.CONDITION}
        ),
        RunState.MISSED: frozenset(
            {Reason.LATE, Reason.COALESCED, Reason.WINDOW, Reason.CATCH_UP_NONE, Reason.CATCH_UP_CAP}
        ),
        RunState.ABANDONED: frozenset({Reason.PROCESS_GONE}),
    }
)
"""The reasons of each final state; a success needs none."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours to do. `tries` is the number of this try: the fence of every write to its row.

    `crashes` of them ended with their process. `started_at` is when its first try began, None before that;
    `not_before` is when its next try may begin.
    `behind`: it begins when every earlier run of its job has ended. `probe`: its job is held, and it asks
    nevertheless what is closed for a time.
    """

    id: int
    job: str
    scheduled_for: datetime
    trigger: Trigger
    tries: int = 0
    crashes: int = 0
    vars: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    parent_id: int | None = None
    started_at: datetime | None = None
    not_before: datetime | None = None
    behind: bool = False
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered."""

    provider: str
    model: str
    credential: str


@dataclass(frozen=True, slots=True)
class PaidAnswer:
    """What a model has answered to the try `tries` of a run, before anybody has judged it."""

    run_id: int
    tries: int
    output: str
    truncated: bool
    served: Served
    fallback: bool


HOLD_MARGIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job is not asked for a while: every target is closed. `closed` names the credentials."""

    opens_at: datetime
    closed: str
    reason: str


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens a job's runs may use from `since` on: the beginning of its day.

    `reserved` is what each run at work counts for until its answer says what it has used.
    """

    tokens: int
    since: datetime
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What bounds the runs of one job: beside each other, in number, and in tokens."""

    concurrency: Concurrency = Concurrency.FORBID
    max_runs: int | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Follower:
    """A job that is due when another has succeeded."""

    job: str
    bounds: Bounds = Bounds()


@dataclass(frozen=True, slots=True)
class Consequences:
    """What a run's end brings about, besides itself, in the same transaction.

    `titled`: a title is sought after a success, and what is delivered waits for it a while.
    """

    followers: tuple[Follower, ...] = ()
    pause_after_failures: int | None = None
    deliver: tuple[Deliver, ...] = ()
    titled: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; made by one of the constructors below, one per legal ending."""

    state: RunState
    reason: str | None = None
    error_class: ErrorClass | None = None
    message: str | None = None
    output: str | None = None
    truncated: bool = False
    served: Served | None = None
    fallback_reason: ErrorClass | None = None
    fallback: bool = False
    usage: Usage = Usage()
    hold: Hold | None = None
    title: str | None = None
    silent: bool = False
    not_before: datetime | None = None

    @classmethod
    def succeeded(
        cls,
        output: str,
        *,
        served: Served,
        truncated: bool = False,
        fallback: bool = False,
        fallback_reason: ErrorClass | None = None,
    ) -> Self:
        """A proved answer: never an empty one."""
        if not output.strip():
            raise ValueError("a run never succeeds with an empty answer")
        return cls(
            RunState.SUCCEEDED,
            output=output,
            served=served,
            truncated=truncated,
            fallback=fallback,
            fallback_reason=fallback_reason,
        )

    @classmethod
    def failed(
        cls,
        reason: ErrorClass | Reason,
        message: str,
        *,
        output: str | None = None,
        truncated: bool = False,
        hold: Hold | None = None,
    ) -> Self:
        """No answer; `reason` is the first target's error class, or what failed before a model was asked.

        With a `hold` the job is not asked again before its time.
        """
        error_class = reason if isinstance(reason, ErrorClass) else None
        return cls(
            RunState.FAILED,
            reason=str(reason),
            error_class=error_class,
            message=message,
            output=output,
            truncated=truncated,
            hold=hold,
        )

    @classmethod
    def timed_out(cls, message: str) -> Self:
        """The deadline came first."""
        return cls(RunState.TIMED_OUT, reason="timeout", error_class=ErrorClass.TIMEOUT, message=message)

    @classmethod
    def again(cls, reason: ErrorClass, message: str, *, not_before: datetime) -> Self:
        """This try has failed, and another one follows: the run waits for it."""
        return cls(
            RunState.QUEUED,
            reason=str(reason),
            error_class=reason,
            message=message,
            not_before=not_before,
        )

    @classmethod
    def skipped(cls, reason: Reason = Reason.CONDITION) -> Self:
        """No model was asked: the job's own condition said no, or its tokens of the day are used up."""
        return cls(RunState.SKIPPED, reason=str(reason))

    @classmethod
    def abandoned(cls) -> Self:
        """The process that did it is gone: its call may have been paid."""
        return cls(RunState.ABANDONED, reason=str(Reason.PROCESS_GONE))

    @classmethod
    def cancelled(cls, reason: Reason) -> Self:
        """Somebody ended it."""
        return cls(RunState.CANCELLED, reason=str(reason))
