"""What tests of alerts start from: a watched configuration, facts that are wrong, and a beat of a daemon."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from jobs.alert import AlertKind, AlertPolicy, Notice
from jobs.credential import Credential, CredentialKind
from jobs.delivery.alert_rules import Watched
from jobs.delivery.alert_words import gathered
from jobs.delivery.alerts import look
from jobs.errors import ErrorClass
from jobs.mark import Scope
from jobs.names import ProviderName
from jobs.run import RunState
from jobs.store import alerts
from jobs.store import jobs as job_verbs
from jobs.store.alert_facts import ClosedCredential
from jobs.store.alerts import About, Standing, Verdict
from jobs.store.tables import alerts as alert_table
from jobs.store.tables import deliveries
from jobs.store.tokens import SealedTokens
from support.claiming import DAILY
from support.ledger import DAY, HOUR, NOW, key_of

LOGIN = Credential(ProviderName("plan"), "house", CredentialKind.OAUTH)
WATCHED = Watched(
    AlertPolicy(to=("ops",)),
    {"digest": None, "report": None, "careful": 2},
    (key_of("main"), key_of("spare"), key_of("main", provider="groq"), LOGIN),
    ZoneInfo("Europe/Berlin"),
)


def watched(**policy: Any) -> Watched:
    """Return the configuration with another policy."""
    return replace(WATCHED, policy=replace(WATCHED.policy, **policy))


def standing(
    kind: AlertKind, rest: str, *, told: datetime = NOW, opened: datetime | None = None, **about: Any
) -> Standing:
    """Return an open alert."""
    return Standing(1, About(kind, f"{kind}:{rest}", **about), opened or told, told)


def closed(error_class: ErrorClass, **values: Any) -> ClosedCredential:
    """Return what is known of a mark: on zai's group for money, else on its credential `main`."""
    group = error_class is ErrorClass.QUOTA_BILLING
    row: dict[str, Any] = {
        "provider": "zai",
        "scope": Scope.GROUP if group else Scope.CREDENTIAL,
        "credential": None if group else "main",
        "quota_group": "credential:main" if group else None,
        "base_url": None,
        "model": None,
        "error_class": error_class,
        "code": "1113" if group else "account_deactivated",
        "until": NOW + HOUR if group else None,
        "made_at": NOW,
        "attempt_id": 7,
        "earned_by": "main",
        "said": "Insufficient balance",
        "http_status": 429,
    }
    return ClosedCredential(**(row | values))


def login(ends: datetime = NOW + 3 * DAY, **values: Any) -> SealedTokens:
    """Return a login of 30 days whose grant ends then."""
    row: dict[str, Any] = {
        "provider": "plan",
        "label": "house",
        "login_id": "login-1",
        "generation": 1,
        "access_token": b"a",
        "refresh_token": b"r",
        "client_id": "app",
        "account_id": None,
        "issued_at": ends - timedelta(days=90),
        "expires_at": NOW + HOUR,
        "grant_ends_at": ends,
    }
    return SealedTokens(**(row | values))


def write(
    db: Connection, verdict: Verdict, *, now: datetime = NOW, to: Sequence[str] = ("ops",)
) -> list[Notice]:
    """Write a verdict; return the notices that were told."""
    told = alerts.tell(db, verdict, to=to, now=now, gathered=gathered)
    return [each.change.notice for each in told]


def beat(
    db: Connection,
    *,
    now: datetime = NOW,
    by: Watched = WATCHED,
    instance_id: int = 0,
) -> list[Notice]:
    """Look and tell, as every process does every 5 s."""
    verdict = look(db, by, instance_id=instance_id, now=now)
    return write(db, verdict, now=now, to=by.policy.to)


def refuse(db: Connection, attempt_id: int = 7, *, now: datetime = NOW) -> None:
    """Have an attempt's mark be refused, as its settling writes it down."""
    kind = AlertKind.ATTRIBUTION_REFUSED
    about = About(kind, f"{kind}:{attempt_id}")
    alerts.write_down(db, about, f"attempt {attempt_id} did not earn a mark", now=now)


def fail(db: Connection, times: int = 3, job: str = "digest") -> None:
    """Let a job's runs fail so many times in a row."""
    job_verbs.see_one(db, job, DAILY, now=NOW)
    for _ in range(times):
        job_verbs.count_end(db, job, RunState.FAILED)


def succeed(db: Connection, job: str = "digest") -> None:
    """Let a job succeed."""
    job_verbs.count_end(db, job, RunState.SUCCEEDED)


def rows(db: Connection, *columns: str) -> list[Any]:
    """Return these columns of all deliveries, oldest first."""
    return list(db.execute(select(*(deliveries.c[name] for name in columns)).order_by(deliveries.c.id)))


def open_alerts(db: Connection) -> list[str]:
    """Return the keys of the alerts that are open."""
    query = select(alert_table.c.key).where(alert_table.c.resolved_at.is_(None))
    return list(db.execute(query).scalars())
