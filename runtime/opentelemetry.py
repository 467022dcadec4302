"""A model's stats as OpenTelemetry metrics; needs `pip install "encort[opentelemetry]"`.

from encort.runtime.opentelemetry import observe
observe(model, name="banking")
"""

from collections.abc import Callable, Iterable
from dataclasses import fields

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from encort.runtime.model import Model
from encort.runtime.stats import GAUGES, TIMES, Stats


def observe(model: Model, *, name: str, meter: Meter | None = None) -> None:
    """Let a meter read `Model.stats` whenever it is asked: `encort.texts`, `encort.run_seconds` and the others.

    Of histograms it sees the sums, in seconds: what OpenTelemetry reads by callbacks has no buckets.

    Args:
        name: Value of the attribute `model`.
        meter: None takes the global provider's.
    """
    meter = metrics.get_meter("encort") if meter is None else meter

    def reader(read: Callable[[Stats], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: [Observation(read(model.stats()), {"model": name})]

    for field in (field.name for field in fields(Stats)):
        create = meter.create_observable_gauge if field in GAUGES else meter.create_observable_counter
        read = _sum_of(field) if field in TIMES else _count_of(field)
        create(f"encort.{field}", callbacks=[reader(read)], unit="s" if field in TIMES else "1")


def _sum_of(field: str) -> Callable[[Stats], float]:
    return lambda stats: float(getattr(stats, field).sum)


def _count_of(field: str) -> Callable[[Stats], float]:
    return lambda stats: float(getattr(stats, field))
