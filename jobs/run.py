"""A run: one due instant of one job, its states, and the ways it can end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

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


OPEN_STATES = (RunState.QUEUED, RunState.RUNNING)
FINAL_STATES = tuple(state for state in RunState if state not in OPEN_STATES)


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


class Reason(StrEnum):
    """Why a run ended as it did, where no error class says it."""

    GATHER = "gather"
    TEMPLATE = "template"
    COMPRESSION = "compression"
    TRUNCATED = "truncated"
    SCHEMA = "schema"
    INTERNAL = "internal"
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    OVERLAP = "overlap"
    PAUSED = "paused"
    HELD = "held"
    LATE = "late"
    COALESCED = "coalesced"
    WINDOW = "window"
    CATCH_UP_NONE = "catch_up_none"
    PROCESS_GONE = "process_gone"


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is ours to do. `tries` is the number of this try: the fence of every write to its row.

    `probe`: its job is held, and it asks nevertheless what is closed for a time.
    """

    id: int
    job: str
    scheduled_for: datetime
    trigger: Trigger
    tries: int = 0
    vars: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered."""

    provider: str
    model: str
    credential: str


HOLD_MARGIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a job is not asked for a while: every target is closed. `closed` names the credentials."""

    opens_at: datetime
    closed: str
    reason: str


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
    def cancelled(cls, reason: Reason) -> Self:
        """Somebody ended it."""
        return cls(RunState.CANCELLED, reason=str(reason))
