"""A model's stats as Prometheus metrics; needs `pip install "encort[prometheus]"`.

from encort.runtime.prometheus import StatsCollector
prometheus_client.REGISTRY.register(StatsCollector(model, name="banking"))
"""

from collections.abc import Iterable
from dataclasses import fields
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from encort.runtime.model import Model
from encort.runtime.stats import GAUGES, Histogram


class StatsCollector(Collector):
    """Reads `Model.stats` whenever Prometheus asks: `encort_texts_total`, `encort_run_seconds`, and the others."""

    def __init__(self, model: Model, *, name: str) -> None:
        """Collect for one model.

        Args:
            name: Value of the label `model`.
        """
        self._model, self._name = model, name

    def collect(self) -> Iterable[Metric]:
        stats = self._model.stats()
        for field in fields(stats):
            yield self._metric(field.name, getattr(stats, field.name))

    def _metric(self, name: str, value: int | Histogram) -> Metric:
        about = (f"encort_{name}", f"See encort.Stats.{name}.")
        if isinstance(value, Histogram):
            bounds = [*map(str, value.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            histogram = HistogramMetricFamily(*about, labels=["model"])
            histogram.add_metric([self._name], buckets, value.sum)
            return histogram
        family = (GaugeMetricFamily if name in GAUGES else CounterMetricFamily)(*about, labels=["model"])
        family.add_metric([self._name], value)
        return family
