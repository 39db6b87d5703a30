"""What can go wrong: the closed list of error classes, and the exceptions the program raises.

PromptdError
├── ConfigError            the files are wrong; carries every fault           (exit 78)
├── UsageError             the operator asked for something that is not there (exit 2)
├── Unavailable            a daemon, a database or a file cannot be reached   (exit 69)
├── Busy                   held or locked: try later                          (exit 75)
├── SecretUnreadable       a reference that yields no secret at this moment
│   └── SecretDelayed      its file gave no answer in time: later it may
├── CommandFailed          a job's command gave no output that can be used
├── TemplateError          a prompt that cannot be rendered
├── CompressionFailed      a text that was too long could not be made shorter
├── AttributionRefused     a mark that its attempt did not earn
├── LoginFailed            a person's login that was not granted
├── FenceLost              a write for a run that somebody else has ended or taken over
├── AnswerUnfit            no answer fits the schema that the job asks for
├── Undeliverable          a delivery target did not take what it was sent
└── ChainExhausted         no target of the chain gave an answer
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

OUT_OF_REACH = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)
"""What a disk answers that may be there again later: nfs(5), `soft`; fuse(4)."""


class ErrorClass(StrEnum):
    """Every failure is exactly one of these; what is done about each stands in `recovery.py`."""

    CONFIG_ERROR = "config_error"
    AUTH = "auth"
    AUTH_DEAD = "auth_dead"
    AUTH_UNAVAILABLE = "auth_unavailable"
    PERMISSION = "permission"
    RATE_LIMIT = "rate_limit"
    RATE_LIMIT_UPSTREAM = "rate_limit_upstream"
    QUOTA_WINDOW = "quota_window"
    QUOTA_BILLING = "quota_billing"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    INVALID_RESPONSE = "invalid_response"
    CONTEXT_OVERFLOW = "context_overflow"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    CONTENT_FILTER = "content_filter"
    MODEL_NOT_FOUND = "model_not_found"
    ENTITLEMENT = "entitlement"
    POLICY_BLOCKED = "policy_blocked"
    BAD_REQUEST = "bad_request"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong in a file, and what would be right.

    `line` and `column` count from 1; 0 means that the whole file is meant.
    """

    file: Path
    line: int
    column: int
    key: str
    wrong: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else str(self.file)
        key = f" {self.key}:" if self.key else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{place}:{key} {self.wrong}{mend}"


class PromptdError(Exception):
    """The root of what this program raises on purpose; its text says what to do."""


class ConfigError(PromptdError):
    """The configuration cannot be used; `faults` lists everything that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class UsageError(PromptdError):
    """The operator named something that does not exist or cannot be done."""


class Unavailable(PromptdError):
    """Something that is needed cannot be reached."""


class Busy(PromptdError):
    """The thing is held or in use: the same call may succeed later."""


class SecretUnreadable(PromptdError):
    """A secret reference (`env:`, `file:`, `systemd:`) yields nothing at this moment."""


class SecretDelayed(SecretUnreadable):
    """The file of a secret gave no answer in time; nothing is known to be wrong with it."""


class CommandFailed(PromptdError):
    """A command of a job did not start, did not end in time, or ended with something else than 0."""


class TemplateError(PromptdError):
    """A template does not compile, or names something that is not there."""


class CompressionFailed(PromptdError):
    """A text that was too long for a model is still as long: nobody could be asked to compress it."""


class AttributionRefused(PromptdError):
    """A mark was refused: its attempt is not of that provider, credential, group or endpoint."""


class FenceLost(PromptdError):
    """A run is no longer ours to write: it has ended, or another try has begun."""


class NotYet(PromptdError):
    """A run cannot begin: an earlier run of its job has not ended, or its time has not come."""


class Undeliverable(PromptdError):
    """A delivery target did not take what it was sent; the text says why, without any secret.

    `permanent`: sending it again cannot help, until somebody mends what the text says. `retry_after` is how
    long the other side asks to be left alone, None where it does not say.
    """

    def __init__(self, why: str, *, permanent: bool = False, retry_after: timedelta | None = None) -> None:
        self.permanent = permanent
        self.retry_after = retry_after
        super().__init__(why)
