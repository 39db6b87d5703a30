"""Where a result can go: one value per kind of delivery target, as the configuration settles it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from jobs.credential import SecretReference
from jobs.definition import Command

DEFAULT_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class AppriseTarget:
    """An Apprise URL: Slack, Discord, Telegram, e-mail and many more. It holds tokens, so it is a secret."""

    name: str
    url: SecretReference
    timeout: timedelta = DEFAULT_TIMEOUT


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An HTTP endpoint that takes a POST, signed with `secret` where there is one.

    `headers` may hold secrets. Link-local and metadata addresses are refused unless `allow_link_local`.
    """

    name: str
    url: SecretReference
    headers: Mapping[str, SecretReference] = field(default_factory=lambda: MappingProxyType({}))
    secret: SecretReference | None = None
    allow_link_local: bool = False
    timeout: timedelta = DEFAULT_TIMEOUT


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file, named by a template of `{job}`, `{run_id}`, `{state}` and `{scheduled_for:%Y-%m-%d}`.

    A relative name lies below `base`, and stays there.
    """

    name: str
    template: str
    base: Path
    timeout: timedelta = DEFAULT_TIMEOUT


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """A program that reads the result from its standard input."""

    name: str
    command: Command

    @property
    def timeout(self) -> timedelta:
        """How long it may take, all that it starts included."""
        return self.command.timeout


DeliveryTarget = AppriseTarget | WebhookTarget | FileTarget | CommandTarget


def references_of(target: DeliveryTarget) -> tuple[SecretReference, ...]:
    """Return every secret that a target refers to."""
    match target:
        case AppriseTarget(url=url):
            return (url,)
        case WebhookTarget(url=url, headers=headers, secret=secret):
            return (url, *headers.values(), *([secret] if secret else []))
        case FileTarget() | CommandTarget():
            return ()
