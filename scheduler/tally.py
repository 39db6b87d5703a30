"""A counter of closed label sets: those that are known begin at 0, and none has a `_created` series.

`prometheus_client`'s own costs an object per label set, and a second sample of each.
"""

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally(Collector):
    """Counts in one thread; may be shown by another."""

    def __init__(self, name: str, words: str, *labels: str, registry: CollectorRegistry) -> None:
        self._name, self._words, self._labels = name, words, labels
        self._counts: Counter[tuple[str, ...]] = Counter()
        registry.register(self)

    def begin(self, label_sets: Iterable[tuple[str, ...]]) -> None:
        """Let these begin at 0, where they have not begun yet."""
        for values in label_sets:
            self._counts[values] += 0

    def add(self, *values: str, count: int = 1) -> None:
        """Count."""
        self._counts[values] += count

    def collect(self) -> Iterable[Metric]:
        """Asked by the registry at each scrape, and as this is registered."""
        family = CounterMetricFamily(self._name, self._words, labels=self._labels)
        for values, count in sorted(self._counts.copy().items()):
            family.add_metric(values, count)
        return [family]
