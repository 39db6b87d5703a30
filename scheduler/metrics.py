"""Events and the database as Prometheus figures; gauges of state are read when scraped."""

import platform
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.errors import ErrorClass
from jobs.events import (
    AttemptSettled,
    AttributionWasRefused,
    Event,
    FellBack,
    RefreshSettled,
    RunClaimed,
    RunDecided,
    RunFinished,
    RunStarted,
    WriteFailed,
)
from jobs.mark import Status
from jobs.run import RunState

_LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_DURATION = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_LATENCY = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WRITE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class CredentialFigure:
    """One credential as it stands now; `resets_at` None where no time is known or none is needed."""

    provider: str
    label: str
    status: Status
    resets_at: datetime | None = None
    token_expires_at: datetime | None = None


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
class _State(Collector):
    """Turns the newest snapshot into figures."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    runs: Tally[tuple[str, str]] = field(default_factory=Tally)

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry at each scrape."""
        yield from self._of_runs()
        yield from self._of_jobs()
        yield from self._of_credentials()
        yield from self._of_daemon()

    def _of_runs(self) -> Iterable[Metric]:
        # Not a Counter object: that adds a _created series for each job, which nobody asked for.
        total = CounterMetricFamily("promptd_runs", "Runs that ended, by job.", labels=["job", "state"])
        for (job, state), count in sorted(self.runs.items()):
            total.add_metric([job, state], count)
        yield total

    def _of_jobs(self) -> Iterable[Metric]:
        times = {
            "job_next_run_timestamp_seconds": ("When the job is due next.", "next_run_at"),
            "job_last_success_timestamp_seconds": ("When the job last succeeded.", "last_success_at"),
            "job_last_start_timestamp_seconds": ("When a run of the job last started.", "last_start_at"),
        }
        for name, (words, attribute) in times.items():
            gauge = GaugeMetricFamily(f"promptd_{name}", words, labels=["job"])
            for job in self.snapshot.jobs:
                moment: datetime | None = getattr(job, attribute)
                if moment is not None:
                    gauge.add_metric([job.name], moment.timestamp())
            yield gauge
        failures = GaugeMetricFamily(
            "promptd_job_consecutive_failures", "Failed runs of the job in a row.", labels=["job"]
        )
        for job in self.snapshot.jobs:
            failures.add_metric([job.name], job.consecutive_failures)
        yield failures

    def _of_credentials(self) -> Iterable[Metric]:
        status = GaugeMetricFamily(
            "promptd_credential_status",
            "1 for the status that a credential has.",
            labels=["provider", "credential", "status"],
        )
        opens = GaugeMetricFamily(
            "promptd_credential_reset_timestamp_seconds",
            "When a closed credential opens again.",
            labels=["provider", "credential"],
        )
        expires = GaugeMetricFamily(
            "promptd_oauth_token_expiry_timestamp_seconds",
            "When a login's access token ends.",
            labels=["provider", "credential"],
        )
        usable: Tally[str] = Tally()
        for each in self.snapshot.credentials:
            usable[each.provider] += each.status is Status.OK
            for known in Status:
                status.add_metric([each.provider, each.label, known], float(each.status is known))
            if each.resets_at is not None:
                opens.add_metric([each.provider, each.label], each.resets_at.timestamp())
            if each.token_expires_at is not None:
                expires.add_metric([each.provider, each.label], each.token_expires_at.timestamp())
        count = GaugeMetricFamily(
            "promptd_provider_usable_credentials", "Credentials that are open now.", labels=["provider"]
        )
        for provider, number in sorted(usable.items()):
            count.add_metric([provider], number)
        yield from (status, opens, expires, count)

    def _of_daemon(self) -> Iterable[Metric]:
        figures = {
            "jobs_held": ("Jobs held until a provider opens.", self.snapshot.jobs_held),
            "jobs_paused": ("Jobs that an operator paused.", self.snapshot.jobs_paused),
            "runs_in_progress": ("Runs that a worker has in hand.", self.snapshot.runs_in_progress),
        }
        for name, (words, value) in figures.items():
            yield GaugeMetricFamily(f"promptd_{name}", words, value=value)
        beat = self.snapshot.planner_beat_at
        if beat is not None:
            yield GaugeMetricFamily(
                "promptd_planner_heartbeat_timestamp_seconds",
                "When planning last woke up.",
                value=beat.timestamp(),
            )


class Metrics:
    """Listens to events; holds the registry that `/metrics` shows."""

    def __init__(self, *, version: str, job_names: Iterable[str], providers: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._state = _State()
        self._make_counters()
        self._make_histograms()
        self.registry.register(self._state)
        info = Gauge("promptd_build_info", "Versions.", ["version", "python"], registry=self.registry)
        info.labels(version, platform.python_version()).set(1)
        self._reload_ok = self._gauge(
            "config_last_reload_successful", "1 when the configuration that was read last is in force."
        )
        self._reload_at = self._gauge(
            "config_last_reload_timestamp_seconds", "When the configuration in force was read."
        )
        self._begin_at_zero(job_names, providers)

    def take(self, snapshot: Snapshot) -> None:
        """Show this state at the next scrape."""
        self._state.snapshot = snapshot

    def hear(self, event: Event) -> None:
        """Count an event."""
        match event:
            case RunClaimed(lateness=lateness):
                self._lateness.observe(max(0.0, lateness))
            case RunStarted(waited=waited):
                self._queue_wait.observe(waited)
            case RunDecided(job, _, state, reason, count):
                self._ended(job, state, reason, count)
            case RunFinished(run, outcome, seconds):
                self._ended(run.job, outcome.state, outcome.reason or "", 1)
                self._run_duration.labels(outcome.state).observe(seconds)
            case AttemptSettled():
                self._attempt(event)
            case FellBack(_, from_provider, to_provider, error_class):
                self._fallbacks.labels(from_provider, to_provider, error_class).inc()
            case RefreshSettled(provider, _, outcome):
                self._refreshes.labels(provider, outcome).inc()
            case AttributionWasRefused():
                self._refused.inc()
            case WriteFailed(kind, _):
                self._db_errors.labels(kind).inc()
            case _:
                return

    def know(self, job_names: Iterable[str], providers: Iterable[str]) -> None:
        """Let the figures of these jobs and providers begin at 0, where they have not begun yet."""
        self._begin_at_zero(job_names, providers)

    def reloaded(self, *, ok: bool, at: datetime) -> None:
        """Note a reload of the configuration, and whether it is in force."""
        self._reload_ok.set(float(ok))
        if ok:
            self._reload_at.set(at.timestamp())

    def observe_write(self, seconds: float) -> None:
        """Note how long a group of writes took."""
        self._db_write.observe(seconds)

    def _ended(self, job: str, state: str, reason: str, count: int) -> None:
        kind = "succeeded" if state == RunState.SUCCEEDED else "other"
        self._state.runs[(job, kind)] += count
        self._outcomes.labels(state, reason).inc(count)

    def _attempt(self, event: AttemptSettled) -> None:
        self._attempts.labels(event.provider, event.purpose, event.error_class or "none").inc()
        self._latency.labels(event.provider).observe(event.latency)
        for direction, count in (("input", event.input_tokens), ("output", event.output_tokens)):
            if count:
                self._tokens.labels(event.provider, direction).inc(count)
        if event.error_class is ErrorClass.UNKNOWN:
            self._unclassified.labels(event.provider, str(event.http_status or "none")).inc()

    def _begin_at_zero(self, job_names: Iterable[str], providers: Iterable[str]) -> None:
        for job in job_names:
            for kind in ("succeeded", "other"):
                self._state.runs[(job, kind)] += 0
        for provider in providers:
            self._attempts.labels(provider, "main", "none")

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"promptd_{name}", words, labels, registry=self.registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(f"promptd_{name}", words, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"promptd_{name}", words, labels, buckets=buckets, registry=self.registry)

    def _make_counters(self) -> None:
        self._outcomes = self._counter("run_outcomes_total", "Runs that ended, by how.", "state", "reason")
        self._attempts = self._counter(
            "attempts_total", "Requests to providers.", "provider", "purpose", "error_class"
        )
        self._fallbacks = self._counter(
            "fallbacks_total", "Chains that went on.", "from_provider", "to_provider", "error_class"
        )
        self._refreshes = self._counter("oauth_refresh_total", "Refreshes of logins.", "provider", "outcome")
        self._tokens = self._counter(
            "tokens_total", "Tokens as providers count them.", "provider", "direction"
        )
        self._unclassified = self._counter(
            "unclassified_errors_total", "Failures that no rule knows.", "provider", "status"
        )
        self._refused = self._counter(
            "attribution_refused_total", "Marks refused by the store; a bug if above 0."
        )
        self._db_errors = self._counter("db_errors_total", "Writes that the database refused.", "kind")

    def _make_histograms(self) -> None:
        self._run_duration = self._histogram(
            "run_duration_seconds", "Start to end of a run.", _DURATION, "state"
        )
        self._lateness = self._histogram("fire_lateness_seconds", "Claim minus instant.", _LATENESS)
        self._queue_wait = self._histogram("queue_wait_seconds", "Due until taken up.", _LATENESS)
        self._latency = self._histogram("attempt_duration_seconds", "One request.", _LATENCY, "provider")
        self._db_write = self._histogram("db_write_seconds", "One group of writes, commit included.", _WRITE)


def job_figures(
    names: Iterable[str],
    *,
    next_runs: Mapping[str, datetime],
    last: Mapping[str, Mapping[str, datetime | None]],
    failures: Mapping[str, int],
) -> tuple[JobFigure, ...]:
    """Join what is known of each job."""
    return tuple(
        JobFigure(
            name,
            next_runs.get(name),
            last.get(name, {}).get("success"),
            last.get(name, {}).get("start"),
            failures.get(name, 0),
        )
        for name in names
    )
