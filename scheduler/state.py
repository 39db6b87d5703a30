"""How credentials and jobs stand now, read in one snapshot: for figures, `auth list` and `status`."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from jobs.credential import CredentialKind, Readable
from jobs.mark import FOR_EVER, Mark, Status
from jobs.providers.registry import Provider
from jobs.providers.resolve import no_key
from jobs.providers.vault import Vault
from jobs.store import credentials, ledger, tokens
from jobs.store import jobs as job_verbs
from scheduler.config.settings import Settings
from scheduler.metrics import CredentialFigure, Snapshot, job_figures


def read_snapshot(
    connection: Connection,
    settings: Settings,
    vault: Vault,
    *,
    next_runs: Mapping[str, datetime],
    runs_in_progress: int,
    planner_beat_at: datetime,
    now: datetime,
) -> Snapshot:
    """Read everything that a scrape shows."""
    states = job_verbs.states(connection)
    closed = job_verbs.closed_jobs(connection, now=now)
    return Snapshot(
        jobs=job_figures(
            settings.jobs,
            next_runs=next_runs,
            last=ledger.last_of_each(connection),
            failures={name: state.consecutive_failures for name, state in states.items()},
        ),
        credentials=tuple(
            figure
            for name in settings.asked_providers()
            for figure in _figures(connection, settings.registry.provider(name), vault, now)
        ),
        jobs_held=closed["held"],
        jobs_paused=closed["paused"],
        runs_in_progress=runs_in_progress,
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
        expires = None
        if credential.kind is CredentialKind.OAUTH:
            login = tokens.load(connection, credential.provider, credential.label)
            expires = login.expires_at if login else None
        status, until = Status.UNREADABLE, None
        if isinstance(each, Readable):
            status, until = _status(each, marks, only_credential=len(found) == 1, now=now)
        figures.append(CredentialFigure(credential.provider, credential.label, status, until, expires))
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
