"""Alerts: what is wrong with a job or a credential; told once, reminded of, and told when it is over."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class AlertKind(StrEnum):
    """What an alert is about; the last two are told once, the others last until something mends them."""

    JOB_FAILING = "job_failing"
    JOB_HELD = "job_held"
    CREDENTIAL_DEAD = "credential_dead"
    CREDENTIAL_BILLING = "credential_billing"
    LOGIN_ENDING = "login_ending"
    PROVIDER_KEYLESS = "provider_keyless"
    RUN_ABANDONED = "run_abandoned"
    ATTRIBUTION_REFUSED = "attribution_refused"

    @property
    def lasts(self) -> bool:
        """Whether it stays open until something mends it; others end as they are told."""
        return self not in (AlertKind.RUN_ABANDONED, AlertKind.ATTRIBUTION_REFUSED)


class Notice(StrEnum):
    """What one message of an alert says."""

    OPENED = "opened"
    REMINDER = "reminder"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """Who is told of alerts, and when; `to` empty: nobody, and none are kept.

    `to` names delivery targets. A job is failing after `after_failures` failed runs in a row.
    """

    to: tuple[str, ...] = ()
    after_failures: int = 3
    remind_every: timedelta = timedelta(hours=24)
