"""What happens, said once: frozen events that logs and metrics listen to. Nobody in `jobs` knows either."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from jobs.alert import AlertKind, Notice
from jobs.attempt import Purpose
from jobs.credential import SecretReference
from jobs.errors import ErrorClass
from jobs.run import ClaimedRun, Outcome


@dataclass(frozen=True, slots=True)
class RunClaimed:
    """A due instant became a run; `lateness` is claim minus instant, in seconds."""

    run: ClaimedRun
    lateness: float


@dataclass(frozen=True, slots=True)
class RunDecided:
    """An instant ended without a run: skipped or missed."""

    job: str
    scheduled_for: datetime
    state: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A worker took a run up; `waited` is the time in the queue, in seconds.

    `heartbeat` is where that is told, of the job as it is in this try.
    """

    run: ClaimedRun
    waited: float
    heartbeat: SecretReference | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ended; `seconds` is the time from start to end, `heartbeat` as in `RunStarted`."""

    run: ClaimedRun
    outcome: Outcome
    seconds: float
    heartbeat: SecretReference | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RunRetries:
    """A try of a run failed, and another one follows in so many seconds."""

    run: ClaimedRun
    not_before: datetime
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class AttemptOpened:
    """A request is committed and about to leave; said in the context of the run that makes it."""

    attempt_id: int
    run_id: int | None
    provider: str
    model: str
    credential: str
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class AttemptSettled:
    """A request was answered, or failed; `error_class` is None on success, `latency` in seconds."""

    attempt_id: int
    run_id: int | None
    provider: str
    model: str
    credential: str
    purpose: Purpose
    error_class: ErrorClass | None
    rule: str
    http_status: int | None
    code: str | None
    latency: float
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TargetPassedOver:
    """A target was not asked."""

    run_id: int | None
    provider: str
    model: str
    error_class: ErrorClass
    message: str


@dataclass(frozen=True, slots=True)
class FellBack:
    """A chain left one target for the next."""

    run_id: int | None
    from_provider: str
    to_provider: str
    error_class: ErrorClass


@dataclass(frozen=True, slots=True)
class ChainWaits:
    """Every target is closed, and a run waits for the first to open; `why` says which and when."""

    run_id: int | None
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class JobHeld:
    """Every target of a job is closed until known times: nothing is asked before `until`.

    `first` is False where the same closed credentials hold another job already: one alert is enough.
    """

    job: str
    until: datetime
    reason: str
    first: bool


@dataclass(frozen=True, slots=True)
class JobReleased:
    """A held job may ask again."""

    job: str


@dataclass(frozen=True, slots=True)
class JobPaused:
    """A job was paused by what became of its runs; somebody has to resume it."""

    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunRecovered:
    """The process that ran it is gone, and another has ended it.

    It is abandoned, since its call may have been paid; or its answer was there already.
    """

    run: ClaimedRun
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class CredentialMarked:
    """A credential, model, group or endpoint was closed; `until` None: until somebody mends it."""

    provider: str
    credential: str
    scope: str
    error_class: ErrorClass
    code: str | None
    until: datetime | None
    attempt_id: int


@dataclass(frozen=True, slots=True)
class AttributionWasRefused:
    """The store refused a mark that its attempt had not earned: a bug, to be alerted on."""

    attempt_id: int
    message: str


@dataclass(frozen=True, slots=True)
class RefreshSettled:
    """A login was refreshed, or not; `outcome` is `succeeded`, `adopted` or an error class."""

    provider: str
    credential: str
    outcome: str


@dataclass(frozen=True, slots=True)
class GrantEnding:
    """A login is about to end for good: somebody has to log in again before `ends_at`. Said once."""

    provider: str
    credential: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class DeliverySettled:
    """A delivery was tried; `outcome` is `delivered`, `retried` (at `again_at`), or `failed` for good."""

    delivery_id: int
    target: str
    outcome: str
    attempts: int
    run_id: int | None = None
    alert_id: int | None = None
    again_at: datetime | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class AlertTold:
    """An alert was opened, reminded of, or is over: `notice`. Who is told is another matter."""

    kind: AlertKind
    notice: Notice
    message: str
    job: str | None = None
    provider: str | None = None
    credential: str | None = None
    run_id: int | None = None


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The database refused a write; `kind` is `full`, `locked`, `readonly`, `unreachable` or `other`."""

    kind: str
    message: str


Event = (
    RunClaimed
    | RunDecided
    | RunStarted
    | RunFinished
    | RunRetries
    | AttemptOpened
    | AttemptSettled
    | TargetPassedOver
    | FellBack
    | ChainWaits
    | JobHeld
    | JobReleased
    | JobPaused
    | RunRecovered
    | CredentialMarked
    | AttributionWasRefused
    | RefreshSettled
    | GrantEnding
    | DeliverySettled
    | AlertTold
    | WriteFailed
)
Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, in the order they were added, in the caller's thread."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)

    def listen(self, listener: Listener) -> None:
        """Add a listener; it must not block and must not raise."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener(event)
