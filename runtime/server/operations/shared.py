"""`SharedFolder`: what the worker processes of one server tell each other."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from encort.runtime.engine.stats import GAUGES, TIMES, Histogram, Stats, StatsSource
from encort.runtime.server.operations.drift import DriftTotals

SAVE_S = 1.0
"""Seconds between two times that a worker writes its stats."""
_DEAD = "dead-"


class SharedFolder:
    """A folder of small files. Each file has one writer, which replaces it as a whole.

    Attributes:
        metrics: Folder of prometheus-client.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made if need be."""
        self._folder, self.metrics = folder, folder / "metrics"
        self.metrics.mkdir(parents=True, exist_ok=True)

    def save_stats(self, stats: Mapping[str, Stats]) -> None:
        """Write the stats of this process, by model."""
        self._write(f"stats-{os.getpid()}", {name: asdict(of_model) for name, of_model in stats.items()})

    def stats_of_others(self, model: str) -> Iterator[Stats]:
        """Yield the stats of one model in the other processes, also in those that have died: counts never go down."""
        for file in self._folder.glob("*stats-*"):
            if file.name == f"stats-{os.getpid()}" or model not in (content := json.loads(file.read_bytes())):
                continue
            values = content[model]
            if file.name.startswith(_DEAD):
                values.update(dict.fromkeys(GAUGES, 0))
            values.update({name: Histogram(**values[name]) for name in TIMES})
            yield Stats(**values)

    def save_drift(self, totals: Mapping[str, DriftTotals]) -> None:
        """Write the drift in this process, by model."""
        self._write(f"drift-{os.getpid()}", {name: asdict(of_model) for name, of_model in totals.items()})

    def drift_of_others(self, model: str) -> Iterator[DriftTotals]:
        """Yield the drift of one model in the other processes."""
        for file in self._folder.glob("drift-*"):
            if file.name != f"drift-{os.getpid()}":
                with contextlib.suppress(FileNotFoundError, KeyError):  # the process has died, or lacks the model
                    yield DriftTotals(**json.loads(file.read_bytes())[model])

    def mark_dead(self, process: int) -> None:
        """Count the queue and the drift of a process that has died no more."""
        (self._folder / f"drift-{process}").unlink(missing_ok=True)
        file = self._folder / f"stats-{process}"
        if file.exists():
            file.rename(self._folder / f"{_DEAD}{file.name}")

    def save_bundles(self, bundles: Mapping[str, str]) -> None:
        """Write the bundles that all processes shall serve, by model."""
        self._write("bundles", dict(bundles))

    def bundles(self) -> dict[str, str]:
        """Return the bundles that all processes shall serve, as far as they were replaced."""
        file = self._folder / "bundles"
        return dict(json.loads(file.read_bytes())) if file.exists() else {}

    def _write(self, name: str, content: Any) -> None:
        temporary = self._folder / f"new-{name}-{os.getpid()}"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self._folder / name)


class SummedStats(Mapping[str, StatsSource]):
    """Stats of models, summed over all processes, and over the models that were replaced.

    Attributes:
        shared: Has the stats of the other processes.
    """

    def __init__(self, models: Mapping[str, StatsSource], shared: SharedFolder) -> None:
        """Add up the stats of models that may be replaced, by name."""
        self._models, self.shared = models, shared
        self._last = {name: (model, model.stats()) for name, model in models.items()}
        self._before: dict[str, Stats] = {}

    def __getitem__(self, name: str) -> StatsSource:
        return _Sum([self.own(name), *self.shared.stats_of_others(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def own(self, name: str) -> Stats:
        """Return the stats of one model in this process."""
        model, (last_model, last) = self._models[name], self._last[name]
        if model is not last_model:
            before = self._before.get(name)
            self._before[name] = last if before is None else add_stats([before, last])
        now = model.stats()
        self._last[name] = model, now
        return add_stats([self._before[name], now], gauges_of=now) if name in self._before else now

    def save(self) -> None:
        """Tell the other processes."""
        self.shared.save_stats({name: self.own(name) for name in self._models})


class _Sum:
    def __init__(self, parts: Iterable[Stats]) -> None:
        self._parts = list(parts)

    def stats(self) -> Stats:
        """Return the sum."""
        return add_stats(self._parts)


def add_stats(parts: Iterable[Stats], *, gauges_of: Stats | None = None) -> Stats:
    """Return the sum of stats.

    Args:
        parts: The stats.
        gauges_of: Stats of which gauges are taken as they are; None: gauges are summed too.
    """
    parts = list(parts)
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Stats)):
        column = [getattr(part, name) for part in parts]
        if name in TIMES:
            counts = tuple(map(sum, zip(*(one.counts for one in column), strict=True)))
            values[name] = Histogram(bounds=column[0].bounds, counts=counts, sum=sum(one.sum for one in column))
        else:
            is_kept = name in GAUGES and gauges_of is not None
            values[name] = getattr(gauges_of, name) if is_kept else sum(column)
    return Stats(**values)
