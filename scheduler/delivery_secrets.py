"""The secrets of deliveries and heartbeats: read before any work, so that no command gives them away."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from jobs.credential import SecretReference
from jobs.delivery.signing import weakness
from jobs.delivery.target import AppriseTarget, CommandTarget, FileTarget, WebhookTarget, references_of
from jobs.errors import SecretUnreadable
from jobs.providers.secret_files import SecretFiles
from jobs.providers.secrets import SecretReader
from jobs.secret import Redactor, Secret, secrets_in_headers, secrets_in_url
from scheduler.config.delivery_forms import http_url
from scheduler.config.settings import Settings


class Form(Enum):
    """What a secret is used as."""

    APPRISE_URL = auto()
    HTTP_URL = auto()
    HEADER = auto()
    KEY = auto()


@dataclass(frozen=True, slots=True)
class Kept:
    """A secret of a delivery or heartbeat: the dotted key that says where it is kept."""

    key: str
    reference: SecretReference
    form: Form


@dataclass(frozen=True, slots=True)
class Unusable:
    """A secret that cannot be used now, and why; the text holds nothing of it."""

    kept: Kept
    why: str

    def __str__(self) -> str:
        return f"{self.kept.key}, {self.kept.reference}: {self.why}"


def kept_by(settings: Settings) -> Iterator[Kept]:
    """Yield every secret that delivery targets and heartbeats refer to."""
    for name, target in settings.delivery.items():
        at = f"delivery.{name}"
        match target:
            case AppriseTarget(url=url):
                yield Kept(f"{at}.apprise", url, Form.APPRISE_URL)
            case WebhookTarget(url=url, headers=headers, secret=secret):
                yield Kept(f"{at}.webhook", url, Form.HTTP_URL)
                yield from (Kept(f"{at}.headers.{key}", each, Form.HEADER) for key, each in headers.items())
                if secret is not None:
                    yield Kept(f"{at}.secret", secret, Form.KEY)
            case FileTarget() | CommandTarget():
                pass
    for name, job in settings.jobs.items():
        if job.job.heartbeat is not None:
            yield Kept(f"jobs.{name}.heartbeat", job.job.heartbeat, Form.HTTP_URL)


def read(kept: Kept, reader: SecretReader) -> Secret | Unusable:
    """Return a secret as it is now, or why it cannot be used as what it is to be."""
    try:
        secret = reader.unlearned(kept.reference)
    except SecretUnreadable as exc:
        return Unusable(kept, str(exc))
    for each in _telling(kept, secret):
        reader.learn(each)
    return _misfit(kept, secret) or secret


def learn_all(
    settings: Settings, environ: Mapping[str, str], redactor: Redactor, *, files: SecretFiles | None = None
) -> list[Unusable]:
    """Have the redactor know every secret of deliveries and heartbeats; return those that cannot be used.

    It learns them in one go: each time costs as much as all that is known by then.
    """
    reader = SecretReader(environ, redactor, files=files)
    known: list[Secret] = []
    unusable = []
    for kept in kept_by(settings):
        try:
            secret = reader.unlearned(kept.reference)
        except SecretUnreadable as exc:
            unusable.append(Unusable(kept, str(exc)))
            continue
        known += _telling(kept, secret)
        misfit = _misfit(kept, secret)
        unusable += [misfit] if misfit else []
    redactor.learn(known)
    return unusable


def seals_of(settings: Settings, reader: SecretReader) -> dict[str, bytes]:
    """Return for each delivery target what changes when one of its secrets does; it tells nothing of them."""
    seals: dict[str, bytes] = {}
    for name, target in settings.delivery.items():
        seal = hashlib.sha256(_SALT)
        for reference in references_of(target):
            try:
                seal.update(reader.unlearned(reference).reveal().encode() + b"\n")
            except SecretUnreadable:
                seal.update(b"\n")
        seals[name] = seal.digest()
    return seals


_SALT = secrets.token_bytes(32)


def _misfit(kept: Kept, secret: Secret) -> Unusable | None:
    if kept.form is Form.HTTP_URL:
        try:
            http_url(secret.reveal())
        except ValueError as exc:
            return Unusable(kept, str(exc))
    if kept.form is Form.KEY and (why := weakness(secret.reveal())) is not None:
        return Unusable(kept, why)
    return None


def _telling(kept: Kept, secret: Secret) -> list[Secret]:
    """Return what of a secret no text may show.

    Of a URL that is what admits somebody, wherever it is kept: its scheme and host stand in any text. A
    header that is kept elsewhere is one whatever it looks like, and one that is written out may be.
    """
    match kept.form:
        case Form.APPRISE_URL | Form.HTTP_URL:
            return secrets_in_url(secret.reveal())
        case Form.HEADER:
            whole = [] if kept.reference.scheme == "literal" else [secret]
            return [*whole, *secrets_in_headers({kept.key.partition(".headers.")[2]: secret.reveal()})]
        case Form.KEY:
            return [secret]
