"""A model's stats as OpenTelemetry metrics; needs `pip install "encort[opentelemetry]"`.

from encort.runtime.monitoring.opentelemetry import observe
observe({"banking": model})
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from encort.runtime.engine.stats import GAUGES, TIMES, Stats, StatsSource


def observe(models: Mapping[str, StatsSource], *, meter: Meter | None = None) -> None:
    """Let a meter read `Model.stats` whenever it is asked: `encort.texts`, `encort.run_seconds` and the others.

    Of histograms it sees the sums, in seconds: what OpenTelemetry reads by callbacks has no buckets.

    Args:
        models: By the value of the attribute `model`.
        meter: None takes the global provider's; one meter takes one call.
    """
    meter = metrics.get_meter("encort") if meter is None else meter
    for field in (field.name for field in fields(Stats)):
        create = meter.create_observable_gauge if field in GAUGES else meter.create_observable_counter
        create(f"encort.{field}", callbacks=[_reader(models, field)], unit="s" if field in TIMES else "1")


def _reader(models: Mapping[str, StatsSource], field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterable[Observation]:
        for name, model in models.items():
            value = getattr(model.stats(), field)
            yield Observation(value.sum if field in TIMES else value, {"model": name})

    return read
