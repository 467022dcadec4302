"""Stats of models as OpenTelemetry metrics.

Install it with `pip install "encort[opentelemetry]"`, then observe models by name:

    import encort
    from encort.runtime.monitoring.opentelemetry import observe

    model = encort.load("banking.bundle")
    observe({"banking": model})
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from encort.runtime.engine.stats import GAUGES, TIMES, Stats, StatsSource


def observe(models: Mapping[str, StatsSource], *, meter: Meter | None = None) -> None:
    """Let a meter read the stats of models as metrics: `encort.texts`, `encort.run_seconds` and one for every field.

    A histogram of `Stats` becomes its sum in seconds, because instruments with callbacks have no buckets.

    Args:
        models: Models by name, which is the attribute `model` of the metrics.
        meter: Meter that creates the instruments; None: a meter of the global provider. Call it once per meter.
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
