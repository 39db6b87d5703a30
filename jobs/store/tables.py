"""Every table, with the constraints that make a wrong row impossible to write."""

from jobs.store.columns import UtcDateTime, metadata
from jobs.store.credential_tables import attempts, credentials, marks, tokens
from jobs.store.delivery_tables import alerts, deliveries
from jobs.store.run_tables import SCHEDULED, instances, jobs, runs, schedule_periods

__all__ = [
    "SCHEDULED",
    "UtcDateTime",
    "alerts",
    "attempts",
    "credentials",
    "deliveries",
    "instances",
    "jobs",
    "marks",
    "metadata",
    "runs",
    "schedule_periods",
    "tokens",
]
