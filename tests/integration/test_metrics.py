"""Figures: the names and labels of the specification, read by Prometheus's own parser."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

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
    DeliverySettled,
    FellBack,
    RefreshSettled,
    RunClaimed,
    RunDecided,
    RunFinished,
    RunRecovered,
    WriteFailed,
)
from jobs.mark import Status
from jobs.run import REASONS, ClaimedRun, Outcome, Served, Trigger
from scheduler.figures import CredentialFigure, JobFigure, Snapshot
from scheduler.metrics import Known, Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = ClaimedRun(1, "digest", NOW, Trigger.SCHEDULE)
ANSWERED = Outcome.succeeded("text", served=Served("zai", "glm", "main"))
KNOWN = Known(jobs=["digest"], providers=["zai"], logins=["zai"], ways=[("zai", "openai")], targets=["ops"])
STATE = Snapshot(
    jobs=(JobFigure("digest", NOW, NOW, NOW, 2),),
    credentials=(CredentialFigure("zai", "main", Status.EXHAUSTED, NOW, NOW, NOW),),
    jobs_paused=1,
    planner_beat_at=NOW,
)
SPECIFIED = {
    "runs": ("counter", {"job", "state"}),
    "run_outcomes": ("counter", {"state", "reason"}),
    "run_duration_seconds": ("histogram", {"state"}),
    "fire_lateness_seconds": ("histogram", set()),
    "runs_in_progress": ("gauge", set()),
    "queue_wait_seconds": ("histogram", set()),
    "attempts": ("counter", {"provider", "purpose", "error_class"}),
    "attempt_duration_seconds": ("histogram", {"provider"}),
    "fallbacks": ("counter", {"from_provider", "to_provider", "error_class"}),
    "credential_status": ("gauge", {"provider", "credential", "status"}),
    "credential_reset_timestamp_seconds": ("gauge", {"provider", "credential"}),
    "provider_usable_credentials": ("gauge", {"provider"}),
    "oauth_refresh": ("counter", {"provider", "outcome"}),
    "oauth_token_expiry_timestamp_seconds": ("gauge", {"provider", "credential"}),
    "oauth_grant_expiry_timestamp_seconds": ("gauge", {"provider", "credential"}),  # ours: a login ends
    "tokens": ("counter", {"provider", "direction"}),
    "job_next_run_timestamp_seconds": ("gauge", {"job"}),
    "job_last_success_timestamp_seconds": ("gauge", {"job"}),
    "job_last_start_timestamp_seconds": ("gauge", {"job"}),
    "job_consecutive_failures": ("gauge", {"job"}),
    "jobs_held": ("gauge", set()),
    "jobs_paused": ("gauge", set()),
    "deliveries": ("counter", {"target", "outcome"}),
    "unclassified_errors": ("counter", {"provider", "status"}),
    "attribution_refused": ("counter", set()),
    "planner_heartbeat_timestamp_seconds": ("gauge", set()),
    "db_write_seconds": ("histogram", set()),
    "db_errors": ("counter", {"kind"}),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_timestamp_seconds": ("gauge", set()),
    "build_info": ("gauge", {"version", "python"}),
}
"""The table of the specification, by a family's name without its prefix and its `_total`."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3", known=KNOWN)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition.generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float:
    return samples(metrics)[f"promptd_{name}", tuple(sorted((labels or {}).items()))]


def attempt(error_class: ErrorClass | None, status: int | None = 500) -> AttemptSettled:
    return AttemptSettled(
        1, 1, "zai", "glm", "main", Purpose.MAIN, error_class, "*/x", status, None, 0.2, input_tokens=3
    )


def test_every_figure_of_the_specification_is_there_with_its_type_and_its_labels(metrics: Metrics) -> None:
    metrics.take(STATE)
    text = openmetrics.generate_latest(metrics.registry).decode()

    found = {
        family.name.removeprefix("promptd_"): (
            family.type,
            {name for each in family.samples for name in each.labels} - {"le"},
        )
        for family in openmetrics_parser.text_string_to_metric_families(text)
        if not family.name.startswith("promptd_process_")
    }

    assert found == SPECIFIED


def test_known_label_sets_start_at_zero(metrics: Metrics) -> None:
    found = samples(metrics)
    zero = {name for name, number in found.items() if number == 0}

    for labels in (
        {"job": "digest", "state": "succeeded"},
        {"job": "digest", "state": "other"},
    ):
        assert ("promptd_runs_total", tuple(sorted(labels.items()))) in zero
    for error_class in ("none", *ErrorClass):
        for purpose in Purpose:
            labels = {"provider": "zai", "purpose": str(purpose), "error_class": str(error_class)}
            assert ("promptd_attempts_total", tuple(sorted(labels.items()))) in zero
    for state, reasons in REASONS.items():
        for reason in reasons:
            assert ("promptd_run_outcomes_total", (("reason", str(reason)), ("state", str(state)))) in zero
    for outcome in ("delivered", "retried", "failed"):
        assert ("promptd_deliveries_total", (("outcome", outcome), ("target", "ops"))) in zero
    for kind in ("full", "locked", "readonly", "io", "unreachable", "other"):
        assert ("promptd_db_errors_total", (("kind", kind),)) in zero
    assert value(metrics, "oauth_refresh_total", {"provider": "zai", "outcome": "auth_dead"}) == 0
    assert value(metrics, "tokens_total", {"provider": "zai", "direction": "output"}) == 0
    assert value(metrics, "attempt_duration_seconds_count", {"provider": "zai"}) == 0
    assert value(metrics, "run_duration_seconds_count", {"state": "failed"}) == 0
    way = {"from_provider": "zai", "to_provider": "openai", "error_class": "rate_limit"}
    assert value(metrics, "fallbacks_total", way) == 0


def test_what_a_reload_adds_begins_at_zero_and_takes_nothing_from_what_was_counted(metrics: Metrics) -> None:
    metrics.hear(RunFinished(RUN, ANSWERED, 1.0))

    metrics.know(Known(jobs=["digest", "news"], targets=["pager"]))

    assert value(metrics, "runs_total", {"job": "digest", "state": "succeeded"}) == 1
    assert value(metrics, "runs_total", {"job": "news", "state": "succeeded"}) == 0
    assert value(metrics, "deliveries_total", {"target": "pager", "outcome": "failed"}) == 0


def test_runs_total_has_no_created_series(metrics: Metrics) -> None:
    metrics.hear(RunFinished(RUN, ANSWERED, 1.0))

    assert not any(name.startswith("promptd_runs_created") for name, _labels in samples(metrics))


def test_events_are_counted_under_the_specified_names(metrics: Metrics) -> None:
    for event in (
        RunClaimed(RUN, 0.01),
        RunFinished(RUN, ANSWERED, 1.0),
        RunDecided("digest", NOW, "missed", "coalesced", 7),
        RunRecovered(RUN, Outcome.abandoned()),
        attempt(None),
        attempt(ErrorClass.UNKNOWN),
        FellBack(1, "zai", "openai", ErrorClass.AUTH_DEAD),
        RefreshSettled("zai", "main", "succeeded"),
        DeliverySettled(1, "ops", "retried", 1, run_id=1, again_at=NOW),
        DeliverySettled(1, "ops", "delivered", 2, run_id=1),
        AttributionWasRefused(1, "planted"),
        WriteFailed("full", "planted"),
    ):
        metrics.hear(event)

    way = {"from_provider": "zai", "to_provider": "openai", "error_class": "auth_dead"}
    for name, labels, expected in (
        ("runs_total", {"job": "digest", "state": "succeeded"}, 1),
        ("runs_total", {"job": "digest", "state": "other"}, 8),
        ("run_outcomes_total", {"reason": "", "state": "succeeded"}, 1),
        ("run_outcomes_total", {"reason": "coalesced", "state": "missed"}, 7),
        ("run_outcomes_total", {"reason": "process_gone", "state": "abandoned"}, 1),
        ("attempts_total", {"error_class": "none", "provider": "zai", "purpose": "main"}, 1),
        ("fallbacks_total", way, 1),
        ("oauth_refresh_total", {"outcome": "succeeded", "provider": "zai"}, 1),
        ("tokens_total", {"direction": "input", "provider": "zai"}, 6),
        ("deliveries_total", {"target": "ops", "outcome": "retried"}, 1),
        ("deliveries_total", {"target": "ops", "outcome": "delivered"}, 1),
        ("unclassified_errors_total", {"provider": "zai", "status": "500"}, 1),
        ("attribution_refused_total", {}, 1),
        ("db_errors_total", {"kind": "full"}, 1),
        ("fire_lateness_seconds_count", {}, 1),
    ):
        assert value(metrics, name, labels) == expected, (name, labels)


@pytest.mark.parametrize(("status", "label"), [(None, "none"), (418, "418"), (99, "other"), (1000, "other")])
def test_a_provider_cannot_make_up_labels(metrics: Metrics, status: int | None, label: str) -> None:
    metrics.hear(attempt(ErrorClass.UNKNOWN, status))

    assert value(metrics, "unclassified_errors_total", {"provider": "zai", "status": label}) == 1


def test_the_configuration_that_a_daemon_starts_with_counts_as_read(metrics: Metrics) -> None:
    read_at = value(metrics, "config_last_reload_timestamp_seconds")

    assert value(metrics, "config_last_reload_successful") == 1
    assert read_at == pytest.approx(datetime.now(UTC).timestamp(), abs=600)


def test_a_reload_that_failed_is_told_and_leaves_the_time_of_what_is_in_force(metrics: Metrics) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    metrics.reloaded(ok=True, at=later)

    metrics.reloaded(ok=False, at=later + timedelta(hours=1))

    assert value(metrics, "config_last_reload_successful") == 0
    assert value(metrics, "config_last_reload_timestamp_seconds") == pytest.approx(later.timestamp())


def test_state_is_what_the_newest_snapshot_says(metrics: Metrics) -> None:
    metrics.take(STATE)
    metrics.take(Snapshot(jobs=(JobFigure("digest", NOW, None, NOW, 3),)))
    found = samples(metrics)

    assert found["promptd_job_next_run_timestamp_seconds", (("job", "digest"),)] == NOW.timestamp()
    assert found["promptd_job_consecutive_failures", (("job", "digest"),)] == 3
    assert ("promptd_job_last_success_timestamp_seconds", (("job", "digest"),)) not in found
    assert not any(name == "promptd_credential_status" for name, _labels in found)


def test_a_credential_has_one_status_and_its_provider_counts_the_open_ones(metrics: Metrics) -> None:
    metrics.take(STATE)

    statuses = {
        each: value(
            metrics, "credential_status", {"provider": "zai", "credential": "main", "status": str(each)}
        )
        for each in Status
    }
    assert statuses == {each: float(each is Status.EXHAUSTED) for each in Status}
    assert value(metrics, "provider_usable_credentials", {"provider": "zai"}) == 0
    assert value(metrics, "planner_heartbeat_timestamp_seconds") == NOW.timestamp()


def test_openmetrics_is_well_formed_too(metrics: Metrics) -> None:
    metrics.hear(RunFinished(RUN, ANSWERED, 1.0))
    text = openmetrics.generate_latest(metrics.registry).decode()

    names = {family.name for family in openmetrics_parser.text_string_to_metric_families(text)}

    assert "promptd_runs" in names
