"""Credentials: who we are to a provider, named by (provider, label), with the secret only referred to."""

from dataclasses import dataclass, field
from enum import StrEnum

from jobs.names import ProviderName
from jobs.secret import Secret


class CredentialKind(StrEnum):
    """How a credential proves itself."""

    KEY = "key"
    OAUTH = "oauth"
    NONE = "none"


class Strategy(StrEnum):
    """In which order the credentials of a provider are taken."""

    FILL_FIRST = "fill_first"
    ROUND_ROBIN = "round_robin"
    LEAST_USED = "least_used"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept: `env:NAME`, `file:PATH`, `systemd:NAME`, or a literal placeholder."""

    scheme: str
    name: str = field(repr=False)

    def __str__(self) -> str:
        return "literal" if self.scheme == "literal" else f"{self.scheme}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "SecretReference":
        """Read a reference; raises ValueError that says which forms there are, without echoing the text."""
        scheme, colon, name = text.strip().partition(":")
        if not colon or scheme not in ("env", "file", "systemd") or not name:
            raise ValueError("expected env:NAME, file:PATH or systemd:NAME, never the secret itself")
        return cls(scheme, name)


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """What is needed to refresh a login (RFC 6749 section 6); `client_id` may come with the login itself."""

    token_url: str
    client_id: str | None = None
    scopes: tuple[str, ...] = ()
    device_authorization_url: str | None = None
    authorization_url: str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """One way to be admitted by one provider. Two references to one secret are one credential.

    An `implicit` one comes from a built-in key variable: it exists only where the variable is set.
    """

    provider: ProviderName
    label: str
    kind: CredentialKind
    reference: SecretReference | None = None
    oauth: OAuthClient | None = None
    group: str | None = None
    implicit: bool = False

    @property
    def quota_group(self) -> str:
        """The group that shares its quota; a credential without one is its own.

        The colon keeps a label from meeting a group of the same name: groups have none.
        """
        return self.group or f"credential:{self.label}"

    @property
    def source(self) -> str:
        """Where the secret comes from, as shown to people: never the secret."""
        return str(self.reference) if self.reference else self.kind.value


@dataclass(frozen=True, slots=True)
class Use:
    """How a credential has been used: its requests among the ledger's newest, and the newest one's id."""

    requests: int = 0
    newest: int = 0


@dataclass(frozen=True, slots=True)
class Readable:
    """A credential whose secret could be read just now.

    `fingerprints` is today's first, then the same secret's under keys that are being rotated out; for a
    login it is the login's id. `stale` says that an access token must be refreshed before it is used,
    `valid` that it would still be accepted meanwhile. `generation` counts a login's refreshes.
    """

    credential: Credential
    secret: Secret | None
    fingerprints: tuple[str, ...]
    account_id: str | None = None
    stale: bool = False
    valid: bool = True
    generation: int | None = None

    @property
    def fingerprint(self) -> str:
        """Today's fingerprint."""
        return self.fingerprints[0]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A credential whose secret could not be read just now, and what to do about it."""

    credential: Credential
    why: str
