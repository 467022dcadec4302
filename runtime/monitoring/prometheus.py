"""Stats of models as Prometheus metrics.

Install it with `pip install "encort[prometheus]"`, then register models by name:

    import encort
    import prometheus_client
    from encort.runtime.monitoring.prometheus import StatsCollector

    model = encort.load("banking.bundle")
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
    """Reads the stats of models at every scrape: `encort_texts_total`, `encort_run_seconds` and so on."""

    def __init__(self, models: Mapping[str, StatsSource]) -> None:
        """Collect from models.

        Args:
            models: Models by name, which is the label `model` of the metrics.
        """
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """Yield one metric per field of `Stats`, with one sample per model."""
        stats = {name: model.stats() for name, model in self._models.items()}
        for field in (field.name for field in fields(Stats)):
            yield _family(field, {name: getattr(stats_of_model, field) for name, stats_of_model in stats.items()})


def _family(field: str, values: Mapping[str, Any]) -> Metric:
    name_and_help = (f"encort_{field}", f"See encort.Stats.{field}.")
    if field in TIMES:
        histogram = HistogramMetricFamily(*name_and_help, labels=["model"])
        for name, value in values.items():
            bounds = [*map(str, value.bounds), "+Inf"]
            histogram.add_metric([name], list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)
        return histogram
    family = (GaugeMetricFamily if field in GAUGES else CounterMetricFamily)(*name_and_help, labels=["model"])
    for name, value in values.items():
        family.add_metric([name], value)
    return family
