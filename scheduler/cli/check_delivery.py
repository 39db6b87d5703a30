"""What `promptd check` says of delivery: secrets that cannot be read, and URLs that Apprise does not know."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.delivery.addresses import refusal_in_url
from jobs.providers.secrets import SecretReader
from jobs.secret import Secret
from scheduler.cli.context import Context
from scheduler.delivery_secrets import Form, Unusable, kept_by, read

_UNKNOWN = "Apprise knows no service of this scheme; see the list of services in its documentation"
_UNFIT = "Apprise cannot use this URL; compare it with what its documentation says of that service"


def unusable(context: Context) -> Iterator[Unusable]:
    """Yield every secret of deliveries and heartbeats that cannot be used now, and why."""
    reader = SecretReader(context.environ, context.redactor, files=context.secret_files)
    for kept in kept_by(context.settings):
        value = read(kept, reader)
        if isinstance(value, Unusable):
            yield value
        elif kept.form is Form.APPRISE_URL and (why := _apprise_fault(value)):
            yield Unusable(kept, why)


def _apprise_fault(url: Secret) -> str | None:
    """Return what Apprise has against a URL; loading it takes some 0.2 s, and it asks nobody yet."""
    if (what := refusal_in_url(url.reveal())) is not None:
        return f"it names an address that is not asked, {what}; write another URL"
    with _silent():
        from apprise import Apprise  # noqa: PLC0415 - most configurations have no such target
        from apprise.manager_plugins import NotificationManager  # noqa: PLC0415

        known = NotificationManager()  # type: ignore[no-untyped-call] # Apprise has no types there
        if url.reveal().partition("://")[0].lower() not in known:
            return _UNKNOWN
        return None if Apprise.instantiate(url.reveal(), suppress_exceptions=True) is not None else _UNFIT


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Apprise from logging, since it quotes URLs, and its services from warning of what they import."""
    logger = logging.getLogger("apprise")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.disabled = before
