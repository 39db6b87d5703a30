"""Figures as text: the short way for many samples says what the library says."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from scheduler.exposition import exposed

ACCEPTED = ("", "text/plain; version=1.0.0", "application/openmetrics-text; version=1.0.0")
VALUES = (0, 1, -1, 0.1, 1_790_000_000.25, 1e22, float("inf"), float("-inf"))


class _Crowd(Collector):
    """Families with a sample for each of many jobs, oddly named ones among them."""

    def collect(self) -> list[Metric]:
        gauge = GaugeMetricFamily("promptd_odd", 'Words with "quotes", \\ and\nlines.', labels=["job", "a"])
        total = CounterMetricFamily("promptd_ended", "Runs that ended.", labels=["state", "job"])
        for number in range(200):
            gauge.add_metric([f'job-{number} "q" \\ \n é', "ß"], VALUES[number % len(VALUES)])
            total.add_metric(["succeeded", f"job-{number}"], number)
        return [gauge, total]


@pytest.mark.parametrize("accept", ACCEPTED)
def test_many_samples_are_written_as_the_library_writes_them(accept: str) -> None:
    registry = CollectorRegistry()
    registry.register(_Crowd())
    Gauge("promptd_alone", "One.", registry=registry).set(3)
    Counter("promptd_some", "Some.", ["kind"], registry=registry).labels("x").inc()
    Histogram("promptd_seconds", "Times.", registry=registry).observe(0.2)
    encode, _ = choose_encoder(accept)

    assert exposed(registry, encode).decode() == encode(registry).decode()
