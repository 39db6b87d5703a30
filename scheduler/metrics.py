"""Events as Prometheus figures. Label sets that configuration and closed lists know begin at 0."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from jobs import clock
from jobs.attempt import Purpose
from jobs.errors import ErrorClass
from jobs.events import (
    AttemptSettled,
    AttributionWasRefused,
    DeliverySettled,
    Event,
    FellBack,
    RefreshSettled,
    RunClaimed,
    RunDecided,
    RunFinished,
    RunRecovered,
    RunStarted,
    WriteFailed,
)
from jobs.run import REASONS, RunState
from scheduler.figures import Snapshot, State
from scheduler.tally import Tally

NONE = "none"
REFRESH_OUTCOMES = ("succeeded", "adopted")
DELIVERY_OUTCOMES = ("delivered", "retried", "failed")
DATABASE_TROUBLES = ("full", "locked", "readonly", "io", "unreachable", "other")
_TIMED = (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED, RunState.SKIPPED)
_CLASSES = (NONE, *ErrorClass)
_HTTP_STATUSES = range(100, 600)
_LATENESS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_DURATION = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_LATENCY = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WRITE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a configuration knows: label sets of these begin at 0.

    `logins` are the providers with one, `ways` the pairs of providers that a chain may lead from and to.
    """

    jobs: Iterable[str] = ()
    providers: Iterable[str] = ()
    logins: Iterable[str] = ()
    ways: Iterable[tuple[str, str]] = ()
    targets: Iterable[str] = ()


class Metrics:
    """Listens to events; holds the registry that `/metrics` shows.

    Counters count what this process has done; what state there is, a snapshot says.
    """

    def __init__(self, *, version: str, known: Known) -> None:
        self.registry = CollectorRegistry()
        self._state = State()
        self._make_tallies()
        self._make_histograms()
        self.registry.register(self._state)
        ProcessCollector(namespace="promptd", registry=self.registry)
        info = Gauge("promptd_build_info", "Versions.", ["version", "python"], registry=self.registry)
        info.labels(version, platform.python_version()).set(1)
        self._refused = Counter(
            "promptd_attribution_refused_total",
            "Marks refused by the store; a bug if above 0.",
            registry=self.registry,
        )
        self._reload_ok = self._gauge(
            "config_last_reload_successful", "1 when the configuration that was read last is in force."
        )
        self._reload_at = self._gauge(
            "config_last_reload_timestamp_seconds", "When the configuration in force was read."
        )
        self.reloaded(ok=True, at=clock.utcnow())  # a daemon only starts with one that has no faults
        self._begin_at_zero()
        self.know(known)

    def take(self, snapshot: Snapshot | None) -> None:
        """Show this state at the next scrape; None: it is not known."""
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
                self._ended(run.job, outcome.state, outcome.reason)
                self._run_duration.labels(outcome.state).observe(seconds)
            case RunRecovered(run, outcome):
                self._ended(run.job, outcome.state, outcome.reason)
            case AttemptSettled():
                self._attempt(event)
            case FellBack(_, from_provider, to_provider, error_class):
                self._fallbacks.add(from_provider, to_provider, error_class)
            case RefreshSettled(provider, _, outcome):
                self._refreshes.add(provider, outcome)
            case AttributionWasRefused():
                self._refused.inc()
            case DeliverySettled(target=target, outcome=outcome):
                self._deliveries.add(target, outcome)
            case WriteFailed(kind, _):
                self.database_failed(kind)
            case _:
                return

    def know(self, known: Known) -> None:
        """Let the figures of these jobs, providers and targets begin at 0, where they have not begun yet."""
        self._runs.begin(product(known.jobs, ("succeeded", "other")))
        self._fallbacks.begin((*way, each) for way, each in product(known.ways, ErrorClass))
        self._refreshes.begin(product(known.logins, (*REFRESH_OUTCOMES, *ErrorClass)))
        self._deliveries.begin(product(known.targets, DELIVERY_OUTCOMES))
        for provider in known.providers:
            self._attempts.begin(product((provider,), Purpose, _CLASSES))
            self._tokens.begin(product((provider,), ("input", "output")))
            self._unclassified.begin([(provider, NONE)])
            self._latency.labels(provider)

    def reloaded(self, *, ok: bool, at: datetime) -> None:
        """Note a reload of the configuration, and whether it is in force."""
        self._reload_ok.set(float(ok))
        if ok:
            self._reload_at.set(at.timestamp())

    def observe_write(self, seconds: float) -> None:
        """Note how long a group of writes took."""
        self._db_write.observe(seconds)

    def database_failed(self, kind: str) -> None:
        """Count a trouble of the database; its kinds are those of `jobs.store.engine.kind_of`."""
        self._db_errors.add(kind)

    def _ended(self, job: str, state: str, reason: str | None, count: int = 1) -> None:
        self._runs.add(job, "succeeded" if state == RunState.SUCCEEDED else "other", count=count)
        self._outcomes.add(state, reason or "", count=count)

    def _attempt(self, event: AttemptSettled) -> None:
        self._attempts.add(event.provider, event.purpose, event.error_class or NONE)
        self._latency.labels(event.provider).observe(event.latency)
        for direction, count in (("input", event.input_tokens), ("output", event.output_tokens)):
            if count:
                self._tokens.add(event.provider, direction, count=count)
        if event.error_class is ErrorClass.UNKNOWN:
            self._unclassified.add(event.provider, _status(event.http_status))

    def _begin_at_zero(self) -> None:
        """Begin what no configuration has to name."""
        self._outcomes.begin([(RunState.SUCCEEDED, "")])
        self._outcomes.begin((state, reason) for state, reasons in REASONS.items() for reason in reasons)
        self._db_errors.begin((kind,) for kind in DATABASE_TROUBLES)
        for state in _TIMED:
            self._run_duration.labels(state)

    def _tally(self, name: str, words: str, *labels: str) -> Tally:
        return Tally(f"promptd_{name}", words, *labels, registry=self.registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(f"promptd_{name}", words, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"promptd_{name}", words, labels, buckets=buckets, registry=self.registry)

    def _make_tallies(self) -> None:
        self._runs = self._tally("runs_total", "Runs that ended, by job.", "job", "state")
        self._outcomes = self._tally("run_outcomes_total", "Runs that ended, by how.", "state", "reason")
        self._attempts = self._tally(
            "attempts_total", "Requests to providers.", "provider", "purpose", "error_class"
        )
        self._fallbacks = self._tally(
            "fallbacks_total", "Chains that went on.", "from_provider", "to_provider", "error_class"
        )
        self._refreshes = self._tally("oauth_refresh_total", "Refreshes of logins.", "provider", "outcome")
        self._tokens = self._tally("tokens_total", "Tokens as providers count them.", "provider", "direction")
        self._unclassified = self._tally(
            "unclassified_errors_total", "Failures that no rule knows.", "provider", "status"
        )
        self._deliveries = self._tally("deliveries_total", "Deliveries that were tried.", "target", "outcome")
        self._db_errors = self._tally(
            "db_errors_total", "What the database refused, reads of a scrape included.", "kind"
        )

    def _make_histograms(self) -> None:
        self._run_duration = self._histogram(
            "run_duration_seconds", "Start to end of a run.", _DURATION, "state"
        )
        self._lateness = self._histogram("fire_lateness_seconds", "Claim minus instant.", _LATENESS)
        self._queue_wait = self._histogram("queue_wait_seconds", "Due until taken up.", _LATENESS)
        self._latency = self._histogram("attempt_duration_seconds", "One request.", _LATENCY, "provider")
        self._db_write = self._histogram("db_write_seconds", "One group of writes, commit included.", _WRITE)


def _status(http_status: int | None) -> str:
    """Return an HTTP status as a label: a provider may answer any number, and labels are closed lists."""
    if http_status is None:
        return NONE
    return str(http_status) if http_status in _HTTP_STATUSES else "other"
