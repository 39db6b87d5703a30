"""State as Prometheus figures: what a scrape reads from the database and the daemon, and how it is shown."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.mark import Status
from jobs.store.last_runs import LastRuns

_TIMES_OF_JOBS = {
    "job_next_run_timestamp_seconds": ("When the job is due next.", "next_run_at"),
    "job_last_success_timestamp_seconds": ("When the job last succeeded.", "last_success_at"),
    "job_last_start_timestamp_seconds": ("When a run of the job last started.", "last_start_at"),
}
_TIMES_OF_CREDENTIALS = {
    "credential_reset_timestamp_seconds": ("When a closed credential opens again.", "resets_at"),
    "oauth_token_expiry_timestamp_seconds": ("When a login's access token ends.", "token_expires_at"),
    "oauth_grant_expiry_timestamp_seconds": ("When somebody has to log in again.", "grant_ends_at"),
}


@dataclass(frozen=True, slots=True)
class CredentialFigure:
    """One credential as it stands now; `resets_at` None where no time is known or none is needed.

    `grant_ends_at`: when somebody has to log in again, where that is known.
    """

    provider: str
    label: str
    status: Status
    resets_at: datetime | None = None
    token_expires_at: datetime | None = None
    grant_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobFigure:
    """One job as it stands now."""

    name: str
    next_run_at: datetime | None
    last_success_at: datetime | None
    last_start_at: datetime | None
    consecutive_failures: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scrape reads from the database and the daemon."""

    jobs: tuple[JobFigure, ...] = ()
    credentials: tuple[CredentialFigure, ...] = ()
    jobs_held: int = 0
    jobs_paused: int = 0
    runs_in_progress: int = 0
    planner_beat_at: datetime | None = None


@dataclass(eq=False)
class State(Collector):
    """Turns the newest snapshot into figures; without one there are none, since old ones would lie."""

    snapshot: Snapshot | None = None

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry at each scrape."""
        snapshot = self.snapshot  # asked for in a thread beside the loop's
        if snapshot is not None:
            yield from _of_jobs(snapshot)
            yield from _of_credentials(snapshot)
            yield from _of_daemon(snapshot)


def _of_jobs(snapshot: Snapshot) -> Iterable[Metric]:
    for name, (words, attribute) in _TIMES_OF_JOBS.items():
        gauge = GaugeMetricFamily(f"promptd_{name}", words, labels=["job"])
        for job in snapshot.jobs:
            _add_time(gauge, [job.name], getattr(job, attribute))
        yield gauge
    failures = GaugeMetricFamily(
        "promptd_job_consecutive_failures", "Failed runs of the job in a row.", labels=["job"]
    )
    for job in snapshot.jobs:
        failures.add_metric([job.name], job.consecutive_failures)
    yield failures


def _of_credentials(snapshot: Snapshot) -> Iterable[Metric]:
    status = GaugeMetricFamily(
        "promptd_credential_status",
        "1 for the status that a credential has.",
        labels=["provider", "credential", "status"],
    )
    usable: Counter[str] = Counter()
    for each in snapshot.credentials:
        usable[each.provider] += each.status is Status.OK
        for known in Status:
            status.add_metric([each.provider, each.label, known], float(each.status is known))
    count = GaugeMetricFamily(
        "promptd_provider_usable_credentials", "Credentials that are open now.", labels=["provider"]
    )
    for provider, number in sorted(usable.items()):
        count.add_metric([provider], number)
    yield from (status, count)
    for name, (words, attribute) in _TIMES_OF_CREDENTIALS.items():
        gauge = GaugeMetricFamily(f"promptd_{name}", words, labels=["provider", "credential"])
        for each in snapshot.credentials:
            _add_time(gauge, [each.provider, each.label], getattr(each, attribute))
        yield gauge


def _of_daemon(snapshot: Snapshot) -> Iterable[Metric]:
    figures = {
        "jobs_held": ("Jobs held until a provider opens.", snapshot.jobs_held),
        "jobs_paused": ("Jobs that an operator paused.", snapshot.jobs_paused),
        "runs_in_progress": ("Runs at work, in whichever process.", snapshot.runs_in_progress),
    }
    for name, (words, value) in figures.items():
        yield GaugeMetricFamily(f"promptd_{name}", words, value=value)
    beat = snapshot.planner_beat_at
    if beat is not None:
        yield GaugeMetricFamily(
            "promptd_planner_heartbeat_timestamp_seconds",
            "When planning last woke up.",
            value=beat.timestamp(),
        )


def _add_time(gauge: GaugeMetricFamily, labels: list[str], moment: datetime | None) -> None:
    if moment is not None:
        gauge.add_metric(labels, moment.timestamp())


def job_figures(
    names: Iterable[str],
    *,
    next_runs: Mapping[str, datetime],
    last: Mapping[str, LastRuns],
    failures: Mapping[str, int],
) -> tuple[JobFigure, ...]:
    """Join what is known of each job."""
    none = LastRuns()
    return tuple(
        JobFigure(
            name,
            next_runs.get(name),
            last.get(name, none).success_at,
            last.get(name, none).start_at,
            failures.get(name, 0),
        )
        for name in names
    )
