"""The cost model of a run on one core: defaults, or measured on this machine."""

import hashlib
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from encort.runtime.bundle.cpu import cpu_name
from encort.runtime.common.arrays import Int64Array
from encort.runtime.common.errors import InputError

log = logging.getLogger("encort")

_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Cost model of one run: `run + token * tokens + attention * rows * longest ** 2` seconds.

    Only ratios matter to a plan. The defaults were measured with MiniLM in int8 on a Zen 4 core. In a larger model
    `run` is a larger share, because its weights do not stay in the cache.

    Attributes:
        run: Seconds of a run by itself: reading the weights, dispatching the nodes.
        token: Seconds per token, in layers that look at one token at a time.
        attention: Seconds per pair of positions of a row, in attention, which pads rows to the longest one.
    """

    run: float = 2.0e-4
    token: float = 7.6e-5
    attention: float = 1.0e-7

    def __post_init__(self) -> None:
        if not all(0 <= seconds < math.inf for seconds in (self.run, self.token, self.attention)):
            raise InputError(f"costs must be finite and not below 0, got {self}")

    def seconds(self, lengths: Int64Array) -> float:
        """Return the estimated seconds of one run of rows with these lengths, `(rows,)` int64."""
        return self.estimate(len(lengths), int(lengths.sum()), int(lengths.max()))

    def estimate(self, rows: int, tokens: int, longest: int) -> float:
        """Return the estimated seconds of one run.

        Args:
            rows: Number of rows.
            tokens: Tokens of all rows together, without padding.
            longest: Tokens of the longest row.
        """
        return self.run + self.token * tokens + self.attention * rows * longest**2

    def min_length_to_batch(self, longest: int) -> float:
        """Return the least length of a row that is cheaper padded to `longest` than in a run of its own."""
        return math.sqrt(max(0.0, longest**2 - self.run / self.attention)) if self.attention else 0.0


def measure_costs(run: Callable[[int, int], object], *, max_length: int) -> Costs:
    """Fit the cost model of a graph to measured runs of several shapes.

    Args:
        run: Runs the graph with a number of rows and a length.
        max_length: Most tokens of a row.
    """
    short, middle = min(8, max_length), min(64, max_length)
    shapes = [(1, short), (1, middle), (4, short), (32, short), (4, middle), (1, max_length), (2, max_length)]
    seconds = np.array([_median_seconds(run, *shape) for shape in shapes])
    terms = np.array([(1, rows * length, rows * length**2) for rows, length in shapes], np.float64)
    # Relative errors count: with absolute errors the long runs would decide alone.
    fitted, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(shapes)), rcond=None)
    fixed, token, attention = np.maximum(fitted, 0).tolist()
    return Costs(run=fixed, token=token, attention=attention)


def _median_seconds(run: Callable[[int, int], object], rows: int, length: int) -> float:
    run(rows, length)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run(rows, length)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def costs_file(graph: str, provider: str) -> Path | None:
    """Return the file for measured costs of a graph on this processor, in the user's cache folder.

    Args:
        graph: SHA-256 of the graph's file.
        provider: ONNX Runtime's name of the execution provider.

    Returns:
        The path; None if the user has no home folder, as in some containers.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    names = [field.name for field in fields(Costs)]  # a file with other names is another file
    key = hashlib.sha256(f"{names} {graph} {provider} {cpu_name()}".encode()).hexdigest()
    return cache / "encort" / f"costs-{key[:16]}.json"


def save_costs(costs: Costs, file: Path) -> None:
    """Write costs to a file, and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(costs)) + "\n", encoding="utf-8")


def read_costs(file: Path | None, default: Costs) -> Costs:
    """Return the measured costs in a file; the default if there are none, or if they are damaged."""
    if file is None:
        return default
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return Costs(**{field.name: float(plain[field.name]) for field in fields(Costs)})
    except FileNotFoundError:
        return default
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s does not hold costs (%s); using the defaults", file, error)
        return default
