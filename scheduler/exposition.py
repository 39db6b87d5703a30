"""Figures as text: what `prometheus_client` writes, with a short way for families of a sample per job.

The library takes 6 µs for each sample, most of it for names and escapes that ours never need.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

Encode = Callable[[Collector], bytes]
_MANY = 100
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class _Only(Collector):
    """A collector of given families, for the library's encoder."""

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Asked by the encoder."""
        return self._metrics


def exposed(registry: CollectorRegistry, encode: Encode) -> bytes:
    """Return every family as `encode` (see `choose_encoder`) writes it. CPU-bound: call it off the loop."""
    ending = encode(_Only())  # OpenMetrics has one
    parts = []
    for metric in registry.collect():
        short = _is_plain(metric)
        shown = Metric(metric.name, metric.documentation, metric.type) if short else metric
        parts.append(encode(_Only(shown)).removesuffix(ending))
        if short:
            parts.append("".join(map(_line, metric.samples)).encode())
    return b"".join((*parts, ending))


def _is_plain(metric: Metric) -> bool:
    return (
        len(metric.samples) >= _MANY
        and metric.type in ("gauge", "counter")
        and all(
            sample.timestamp is None and sample.exemplar is None and not sample.name.endswith("_created")
            for sample in metric.samples
        )
    )


def _line(sample: Sample) -> str:
    labels = _written(tuple(sample.labels.items()))
    value = floatToGoString(sample.value)  # type: ignore[no-untyped-call] # the library has no type for it
    return f"{sample.name}{labels} {value}\n"


@lru_cache(maxsize=65536)
def _written(labels: tuple[tuple[str, str], ...]) -> str:
    """Return labels in braces, by name; nothing where there are none."""
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sorted(labels))
    return f"{{{pairs}}}" if pairs else ""
