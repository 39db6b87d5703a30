"""How credentials and jobs stand now, read in one snapshot: for figures, `auth list` and `status`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import combinations

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from jobs.credential import CredentialKind, Readable
from jobs.errors import Unavailable
from jobs.mark import FOR_EVER, Mark, Status
from jobs.providers.login_times import ends_at
from jobs.providers.registry import Provider
from jobs.providers.resolve import no_key
from jobs.providers.vault import Vault
from jobs.store import credentials, ledger, tokens
from jobs.store import jobs as job_verbs
from jobs.store.engine import kind_of
from jobs.store.last_runs import Recollection
from scheduler.config.settings import Settings
from scheduler.figures import CredentialFigure, Snapshot, job_figures
from scheduler.metrics import Known, Metrics

READ_TIMEOUT = 5.0  # seconds, of the 10 that Prometheus gives a scrape
logger = logging.getLogger(__name__)


class StateForScrapes:
    """Reads the state when it is scraped: one read at a time, for everybody who asks meanwhile."""

    def __init__(
        self, metrics: Metrics, read: Callable[[], Awaitable[Snapshot]], *, patience: float = READ_TIMEOUT
    ) -> None:
        self._metrics, self._read, self._patience = metrics, read, patience
        self._reading: asyncio.Task[Snapshot] | None = None

    async def refresh(self) -> None:
        """Show the state as it stands, or none of it where the database does not tell it in time.

        Old state would lie, and without an answer the counters would be missed when they are wanted most.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read())
        await asyncio.wait((self._reading,), timeout=self._patience)
        self._metrics.take(self._snapshot(self._reading))

    def _snapshot(self, reading: "asyncio.Task[Snapshot]") -> Snapshot | None:
        try:
            if reading.done():
                return reading.result()
            self._metrics.database_failed("locked")
            logger.warning("the state for a scrape was not read within %g s", self._patience)
        except DBAPIError as exc:
            self._metrics.database_failed(kind_of(exc))
            logger.warning("the state for a scrape cannot be read: %s", exc.orig)
        except Unavailable as exc:
            logger.warning("the state for a scrape cannot be read: %s", exc)
        return None


def known_of(settings: Settings) -> Known:
    """Return the names that a configuration gives to figures."""
    chains = [
        each.chain
        for job in settings.jobs.values()
        for each in (job.job, job.job.compression, job.job.title)
        if each is not None
    ]
    asked = settings.asked_providers()
    return Known(
        jobs=settings.jobs,
        providers=asked,
        logins=[name for name in asked if _has_login(settings.registry.provider(name))],
        ways={
            (one.provider, other.provider) for chain in set(chains) for one, other in combinations(chain, 2)
        },
        targets=settings.delivery,
    )


def _has_login(provider: Provider) -> bool:
    return any(each.kind is CredentialKind.OAUTH for each in provider.credentials)


def read_snapshot(
    connection: Connection,
    settings: Settings,
    vault: Vault,
    *,
    recollection: Recollection,
    next_runs: Mapping[str, datetime],
    planner_beat_at: datetime,
    now: datetime,
) -> Snapshot:
    """Read everything that a scrape shows."""
    states = {name: state for name, state in job_verbs.states(connection).items() if name in settings.jobs}
    return Snapshot(
        jobs=job_figures(
            settings.jobs,
            next_runs=next_runs,
            last=recollection.look(connection),
            failures={name: state.consecutive_failures for name, state in states.items()},
        ),
        credentials=tuple(
            figure
            for name in settings.asked_providers()
            for figure in _figures(connection, settings.registry.provider(name), vault, now)
        ),
        jobs_held=sum(state.held_until is not None and state.held_until > now for state in states.values()),
        jobs_paused=sum(state.paused_at is not None for state in states.values()),
        runs_in_progress=ledger.number_running(connection),
        planner_beat_at=planner_beat_at,
    )


def keyless_providers(
    connection: Connection, settings: Settings, vault: Vault, *, now: datetime
) -> list[str]:
    """Say of each provider that jobs name, and none of whose secrets can be read now, why not."""
    opened = (
        (name, vault.look(connection, settings.registry.provider(name), now=now))
        for name in settings.asked_providers()
    )
    return [why for name, found in opened if (why := no_key(name, found)) is not None]


def _figures(
    connection: Connection, provider: Provider, vault: Vault, now: datetime
) -> list[CredentialFigure]:
    marks = credentials.marks_of(connection, provider.name)
    found = vault.look(connection, provider, now=now)
    figures = []
    for each in found:
        credential = each.credential
        login = None
        if credential.kind is CredentialKind.OAUTH:
            login = tokens.load(connection, credential.provider, credential.label)
        status, until = Status.UNREADABLE, None
        if isinstance(each, Readable):
            status, until = _status(each, marks, only_credential=len(found) == 1, now=now)
        figures.append(
            CredentialFigure(
                credential.provider,
                credential.label,
                status,
                until,
                token_expires_at=login.expires_at if login else None,
                grant_ends_at=ends_at(login) if login else None,
            )
        )
    return figures


def _status(
    each: Readable, marks: list[Mark], *, only_credential: bool, now: datetime
) -> tuple[Status, datetime | None]:
    """Return the status that marks on the credential itself, or on its group, give it."""
    closed = [
        (until, mark)
        for mark in marks
        if mark.closes(each.credential)
        and (until := mark.closed_until(now, fingerprints=each.fingerprints, only_credential=only_credential))
    ]
    until, mark = max(closed, key=lambda pair: pair[0], default=(None, None))
    return mark.status if mark else Status.OK, None if until == FOR_EVER else until
