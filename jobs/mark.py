"""Marks: what a failed attempt closes, for how long, and how that is judged when it is read."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from jobs.attempt import Attempt
from jobs.credential import Credential
from jobs.errors import ErrorClass

FOR_EVER = datetime.max.replace(tzinfo=UTC)
DEFAULT_SOURCE = "default"
LONGEST_FOR_ONLY_CREDENTIAL = timedelta(seconds=60)
_SHORT_FOR_ONLY_CREDENTIAL = frozenset(
    {ErrorClass.RATE_LIMIT, ErrorClass.AUTH, ErrorClass.PERMISSION, ErrorClass.UNKNOWN}
)
_LADDER_FORGETS_AFTER = timedelta(hours=24)


class Scope(StrEnum):
    """What a mark closes. The letters are those of the specification's table."""

    CREDENTIAL = "credential"  # K
    CREDENTIAL_MODEL = "credential_model"  # K×M
    GROUP = "group"  # G
    GROUP_MODEL = "group_model"  # G×M
    ENDPOINT = "endpoint"  # E
    ENDPOINT_MODEL = "endpoint_model"  # E×M

    @property
    def on_credential(self) -> bool:
        """Whether a mark of this scope names a credential."""
        return self in (Scope.CREDENTIAL, Scope.CREDENTIAL_MODEL)

    @property
    def on_group(self) -> bool:
        """Whether a mark of this scope names a quota group."""
        return self in (Scope.GROUP, Scope.GROUP_MODEL)

    @property
    def on_endpoint(self) -> bool:
        """Whether a mark of this scope names a base URL."""
        return self in (Scope.ENDPOINT, Scope.ENDPOINT_MODEL)

    @property
    def on_model(self) -> bool:
        """Whether a mark of this scope names a model."""
        return self.value.endswith("_model")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that say what a mark of this scope closes, besides its provider."""
        says = {
            "credential": self.on_credential,
            "quota_group": self.on_group,
            "base_url": self.on_endpoint,
            "model": self.on_model,
        }
        return tuple(name for name, said in says.items() if said)


class Status(StrEnum):
    """How a credential stands, as people are told."""

    OK = "ok"
    EXHAUSTED = "exhausted"
    INVALID = "invalid"
    DEAD = "dead"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Mark:
    """One closed thing: facts only. Whether it is still closed is asked with `closed_until`.

    `until` None means until the secret changes or an operator resets it. `fingerprint` is that of the
    secret that was refused; only marks on a credential carry it. `stated_until` is the latest time that the
    provider itself has named.
    """

    scope: Scope
    provider: str
    credential: str | None
    quota_group: str | None
    base_url: str | None
    model: str | None
    error_class: ErrorClass
    code: str | None
    until: datetime | None
    until_source: str
    fingerprint: str | None
    step: int
    made_at: datetime
    attempt_id: int
    stated_until: datetime | None = None

    @property
    def status(self) -> Status:
        """What this mark makes of its credential while it is live."""
        if self.error_class is ErrorClass.AUTH_DEAD:
            return Status.DEAD
        return Status.INVALID if self.until is None else Status.EXHAUSTED

    @property
    def lasting(self) -> bool:
        """Whether only a new secret, a login or an operator lifts it."""
        return self.until is None

    def hits(self, *, label: str, quota_group: str, base_url: str, model: str) -> bool:
        """Say whether a request with these would go through what is closed here."""
        named = (
            (self.credential, label),
            (self.quota_group, quota_group),
            (self.base_url, base_url),
            (self.model, model),
        )
        return all(closed is None or closed == used for closed, used in named)

    def closes(self, credential: Credential) -> bool:
        """Say whether this stands against a credential itself or its group, whatever the model."""
        named = self.credential == credential.label or self.quota_group == credential.quota_group
        return self.provider == credential.provider and named and self.model is None

    def closed_until(
        self, now: datetime, *, fingerprints: Collection[str], only_credential: bool
    ) -> datetime | None:
        """Return when it opens (FOR_EVER when no time is known), or None when it is open now.

        A mark made for another secret than today's is not there; `fingerprints` are those of today's, under
        every key, and empty where nobody knows them. Where the provider has one credential only, default
        times are cut to a minute: there is nobody to take over meanwhile.
        """
        if self.fingerprint is not None and fingerprints and self.fingerprint not in fingerprints:
            return None
        if self.until is None:
            return FOR_EVER
        until = self.until
        cut = only_credential and self.until_source == DEFAULT_SOURCE
        if cut and self.error_class in _SHORT_FOR_ONLY_CREDENTIAL:
            guessed = self.made_at + LONGEST_FOR_ONLY_CREDENTIAL
            until = min(until, max(guessed, self.stated_until or guessed))
        return until if until > now else None


@dataclass(frozen=True, slots=True)
class NewMark:
    """A mark that an attempt has just earned, before the store has looked at what stands there already.

    `ladder` holds the default lengths, step by step; `stated` is the provider's own time, which wins.
    `lasts_from_step` is the step from which no time ends it (None: never). One that does not climb renews
    the rung on which the standing mark is: it only looked whether that is still true.
    """

    scope: Scope
    error_class: ErrorClass
    ladder: tuple[timedelta, ...]
    stated: datetime | None = None
    source: str = DEFAULT_SOURCE
    code: str | None = None
    lasts_from_step: int | None = None
    climbs: bool = True

    def step_after(self, previous: Mark | None, *, attempt_started: datetime, now: datetime) -> int:
        """Return the rung this failure stands on.

        Only an attempt that started after the standing mark was made climbs: refusals that were in
        flight together are one step. A day that was open and without a failure starts again at the first.
        """
        if previous is None or now - (previous.until or previous.made_at) > _LADDER_FORGETS_AFTER:
            return 1
        climbs = self.climbs and attempt_started > previous.made_at
        return previous.step + 1 if climbs else previous.step

    def until(self, step: int, *, now: datetime) -> datetime | None:
        """Return when a mark on this rung ends; None when only a new secret or a reset ends it."""
        if self.lasts_from_step is not None and step >= self.lasts_from_step:
            return None
        if self.stated is not None:
            return self.stated
        return now + self.ladder[min(step, len(self.ladder)) - 1]


def subject(scope: Scope, attempt: Attempt) -> dict[str, str | None]:
    """Return the columns that name what a mark of `scope` closes: always the attempt's own, nobody else's."""
    used = used_by(attempt)
    return {name: said if name in (*scope.columns, "provider") else None for name, said in used.items()}


def used_by(attempt: Attempt) -> dict[str, str]:
    """Return everything that an attempt went through, and that a mark of some scope may close."""
    return {
        "provider": attempt.target.provider,
        "credential": attempt.credential.label,
        "quota_group": attempt.credential.quota_group,
        "base_url": attempt.base_url,
        "model": attempt.target.model,
    }
