"""An attempt: one request to a provider, or one target passed over, and who is to blame for its end."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from jobs.credential import Credential
from jobs.request import ApiMode
from jobs.secret import Secret
from jobs.target import Target


class Purpose(StrEnum):
    """What an attempt was for."""

    MAIN = "main"
    COMPRESSION = "compression"
    TITLE = "title"
    REPAIR = "repair"
    REFRESH = "refresh"
    CHECK = "check"
    PROBE = "probe"


class AttemptOutcome(StrEnum):
    """How an attempt stands; `sent` becomes `unknown` when nobody is left to hear the answer."""

    SENT = "sent"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    PASSED_OVER = "passed_over"


class Step(StrEnum):
    """What was done next about an attempt that did not succeed."""

    RETRY = "retry"
    REFRESH = "refresh"
    NEXT_CREDENTIAL = "next_credential"
    NEXT_TARGET = "next_target"
    COMPRESS = "compress"
    HOLD = "hold"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An open request: everything it needs, and everything its failure may be blamed on.

    `base_url` is the endpoint that is asked: the provider's, or the token URL for a refresh.
    """

    id: int
    target: Target
    target_index: int
    credential: Credential
    purpose: Purpose
    base_url: str
    api_mode: ApiMode
    started_at: datetime
    secret: Secret | None = field(repr=False)
    fingerprint: str | None
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Time that a run spent waiting before an attempt, in seconds, and why."""

    seconds: float = 0.0
    reason: str | None = None

    def __add__(self, other: "Wait") -> "Wait":
        """Return both waits as one."""
        reasons = [each.reason for each in (self, other) if each.reason]
        return Wait(self.seconds + other.seconds, "; ".join(dict.fromkeys(reasons)) or None)
