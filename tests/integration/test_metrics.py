"""Figures: the names and labels of the specification, read by Prometheus's own parser."""

from datetime import UTC, datetime

import pytest
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from jobs.attempt import Purpose
from jobs.errors import ErrorClass
from jobs.events import (
    AttemptSettled,
    AttributionWasRefused,
    FellBack,
    RefreshSettled,
    RunClaimed,
    RunDecided,
    RunFinished,
    WriteFailed,
)
from jobs.mark import Status
from jobs.run import ClaimedRun, Outcome, Served, Trigger
from scheduler.metrics import CredentialFigure, JobFigure, Metrics, Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ClaimedRun(1, "digest", NOW, Trigger.SCHEDULE)
ANSWERED = Outcome.succeeded("text", served=Served("zai", "glm", "main"))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", job_names=["digest"], providers=["zai"])


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition.generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def attempt(error_class: ErrorClass | None) -> AttemptSettled:
    return AttemptSettled(
        1, 1, "zai", "glm", "main", Purpose.MAIN, error_class, "*/x", 500, None, 0.2, input_tokens=3
    )


def test_known_label_sets_start_at_zero(metrics: Metrics) -> None:
    found = samples(metrics)

    assert found["promptd_runs_total", (("job", "digest"), ("state", "succeeded"))] == 0
    assert found["promptd_runs_total", (("job", "digest"), ("state", "other"))] == 0


def test_runs_total_has_no_created_series(metrics: Metrics) -> None:
    metrics.hear(RunFinished(RUN, ANSWERED, 1.0))

    assert not any(name.startswith("promptd_runs_created") for name, _labels in samples(metrics))


def test_events_are_counted_under_the_specified_names(metrics: Metrics) -> None:
    for event in (
        RunClaimed(RUN, 0.01),
        RunFinished(RUN, ANSWERED, 1.0),
        RunDecided("digest", NOW, "missed", "coalesced", 7),
        attempt(None),
        attempt(ErrorClass.UNKNOWN),
        FellBack(1, "zai", "openai", ErrorClass.AUTH_DEAD),
        RefreshSettled("zai", "main", "succeeded"),
        AttributionWasRefused(1, "planted"),
        WriteFailed("full", "planted"),
    ):
        metrics.hear(event)
    found = samples(metrics)

    assert found["promptd_runs_total", (("job", "digest"), ("state", "succeeded"))] == 1
    assert found["promptd_runs_total", (("job", "digest"), ("state", "other"))] == 7
    assert found["promptd_run_outcomes_total", (("reason", "coalesced"), ("state", "missed"))] == 7
    assert (
        found["promptd_attempts_total", (("error_class", "none"), ("provider", "zai"), ("purpose", "main"))]
        == 1
    )
    assert (
        found[
            "promptd_fallbacks_total",
            (("error_class", "auth_dead"), ("from_provider", "zai"), ("to_provider", "openai")),
        ]
        == 1
    )
    assert found["promptd_oauth_refresh_total", (("outcome", "succeeded"), ("provider", "zai"))] == 1
    assert found["promptd_tokens_total", (("direction", "input"), ("provider", "zai"))] == 6
    assert found["promptd_unclassified_errors_total", (("provider", "zai"), ("status", "500"))] == 1
    assert found["promptd_attribution_refused_total", ()] == 1
    assert found["promptd_db_errors_total", (("kind", "full"),)] == 1
    assert found["promptd_fire_lateness_seconds_count", ()] == 1


def test_state_is_what_the_newest_snapshot_says(metrics: Metrics) -> None:
    metrics.take(
        Snapshot(
            jobs=(JobFigure("digest", NOW, None, NOW, 2),),
            credentials=(CredentialFigure("zai", "main", Status.EXHAUSTED, NOW),),
            jobs_paused=1,
            planner_beat_at=NOW,
        )
    )
    found = samples(metrics)

    closed = (("credential", "main"), ("provider", "zai"), ("status", "exhausted"))
    assert found["promptd_credential_status", closed] == 1
    assert found["promptd_provider_usable_credentials", (("provider", "zai"),)] == 0
    assert found["promptd_job_next_run_timestamp_seconds", (("job", "digest"),)] == NOW.timestamp()
    assert found["promptd_job_consecutive_failures", (("job", "digest"),)] == 2
    assert found["promptd_planner_heartbeat_timestamp_seconds", ()] == NOW.timestamp()
    assert ("promptd_job_last_success_timestamp_seconds", (("job", "digest"),)) not in found


def test_openmetrics_is_well_formed_too(metrics: Metrics) -> None:
    metrics.hear(RunFinished(RUN, ANSWERED, 1.0))
    text = openmetrics.generate_latest(metrics.registry).decode()

    names = {family.name for family in openmetrics_parser.text_string_to_metric_families(text)}

    assert "promptd_runs" in names
