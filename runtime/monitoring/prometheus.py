"""A model's stats as Prometheus metrics; needs `pip install "encort[prometheus]"`.

from encort.runtime.monitoring.prometheus import StatsCollector
prometheus_client.REGISTRY.register(StatsCollector({"banking": model}))
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from encort.runtime.engine.stats import GAUGES, TIMES, Stats, StatsSource


class StatsCollector(Collector):
    """Reads `Model.stats` whenever Prometheus asks: `encort_texts_total`, `encort_run_seconds`, and the others."""

    def __init__(self, models: Mapping[str, StatsSource]) -> None:
        """Collect for some models; the label `model` has their names."""
        self._models = models

    def collect(self) -> Iterable[Metric]:
        stats = {name: model.stats() for name, model in self._models.items()}
        for field in (field.name for field in fields(Stats)):
            yield _family(field, {name: getattr(each, field) for name, each in stats.items()})


def _family(field: str, values: Mapping[str, Any]) -> Metric:
    about = (f"encort_{field}", f"See encort.Stats.{field}.")
    if field in TIMES:
        histogram = HistogramMetricFamily(*about, labels=["model"])
        for name, value in values.items():
            bounds = [*map(str, value.bounds), "+Inf"]
            histogram.add_metric([name], list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)
        return histogram
    family = (GaugeMetricFamily if field in GAUGES else CounterMetricFamily)(*about, labels=["model"])
    for name, value in values.items():
        family.add_metric([name], value)
    return family
