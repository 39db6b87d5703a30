"""What came back for one request, before anybody says what it means."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from jobs.errors import ErrorClass


class TransportFailure(StrEnum):
    """Why no answer came; `tls` is a certificate that does not verify, which no second request mends.

    `unsendable` is a request that cannot be written at all: nobody was asked, and nobody else is to blame.
    """

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    UNSENDABLE = "unsendable"


class Origin(StrEnum):
    """Which kind of endpoint was asked: the same 401 means different things on the two."""

    MODEL = "model"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, or the reason why there is none (`status` is None exactly then).

    `headers` has lower-case names. `body` is the whole body, already read within its limit; a
    streamed answer stands here as the final document that its events add up to. `left` is False when
    the request surely never reached the server; `detail` is what the transport said where no answer came.
    """

    status: int | None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    body: bytes = b""
    failure: TransportFailure | None = None
    origin: Origin = Origin.MODEL
    left: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WaitHint:
    """When the provider says it can be asked again, and where it said so."""

    until: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means. `error_class` is None for an answer that is no error.

    `rule` names what decided (`zai/1113`, `*/status-429`). `message` is at most 200 characters of
    what the provider said; it may still hold a secret and is redacted where it is stored. `should_retry`
    is what `x-should-retry` orders: False forbids another request with this credential for this failure,
    True allows what the table of recovery grants and adds nothing to it, None orders nothing.
    """

    error_class: ErrorClass | None
    rule: str
    code: str | None = None
    message: str = ""
    wait: WaitHint | None = None
    should_retry: bool | None = None
