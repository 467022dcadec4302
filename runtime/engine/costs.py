"""What a run costs on one core: by default, or as measured on this machine."""

import hashlib
import json
import logging
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from encort.runtime.bundle.cpu import cpu_name
from encort.runtime.common.arrays import Int64Array
from encort.runtime.common.errors import InputError

log = logging.getLogger("encort")

_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a run: `run + token * tokens + attention * rows * longest ** 2`.

    Only ratios matter to a plan. The defaults are those of MiniLM in 8 bits on a Zen 4 core; of a larger model `run`
    is more of the whole, since its weights do not stay in the cache.

    Attributes:
        run: A run by itself: reading the weights, dispatching the nodes.
        token: What each token adds, in the layers that know no other.
        attention: What each pair of places of a row adds, in attention, which pads rows to the longest.
    """

    run: float = 2.0e-4
    token: float = 7.6e-5
    attention: float = 1.0e-7

    def __post_init__(self) -> None:
        if not all(0 <= seconds < math.inf for seconds in (self.run, self.token, self.attention)):
            raise InputError(f"costs must be finite and not below 0, got {self}")

    def seconds(self, lengths: Int64Array) -> float:
        """Of one run of rows of these lengths."""
        return self.estimate(len(lengths), int(lengths.sum()), int(lengths.max()))

    def estimate(self, rows: int, tokens: int, longest: int) -> float:
        """Of one run of so many rows with so many tokens in all."""
        return self.run + self.token * tokens + self.attention * rows * longest**2

    def min_length_to_batch(self, longest: int) -> float:
        """Tokens of the shortest row that is better padded to the longest than run by itself."""
        return math.sqrt(max(0.0, longest**2 - self.run / self.attention)) if self.attention else 0.0


def measure_costs(run: Callable[[int, int], object], *, longest: int) -> Costs:
    """Fit the costs of a graph to runs of several shapes.

    Args:
        run: Runs that many rows of that length.
        longest: Most tokens of a row.
    """
    short, middle = min(8, longest), min(64, longest)
    shapes = [(1, short), (1, middle), (4, short), (32, short), (4, middle), (1, longest), (2, longest)]
    seconds = np.array([_median_seconds(run, *shape) for shape in shapes])
    terms = np.array([(1, rows * length, rows * length**2) for rows, length in shapes], np.float64)
    # Errors count in relation to the time, or the long runs would decide alone.
    fitted, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(shapes)), rcond=None)
    fixed, token, pair = np.maximum(fitted, 0).tolist()
    return Costs(run=fixed, token=token, attention=pair)


def _median_seconds(run: Callable[[int, int], object], rows: int, length: int) -> float:
    run(rows, length)
    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        run(rows, length)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def costs_file(graph: str, provider: str) -> Path | None:
    """Where the measured costs of a graph on this kind of processor are kept, in the user's cache folder.

    Args:
        graph: SHA-256 of its file.
        provider: ONNX Runtime's name of the execution provider that runs it.

    Returns:
        None where the user has no home folder, as in some containers.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    key = hashlib.sha256(f"{graph} {provider} {cpu_name()}".encode()).hexdigest()
    return cache / "encort" / f"costs-{key[:16]}.json"


def save_costs(costs: Costs, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(costs)) + "\n", encoding="utf-8")


def read_costs(file: Path | None, default: Costs) -> Costs:
    """Measured costs, or the default where there are none that can be used."""
    if file is None:
        return default
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return Costs(**{name: float(plain[name]) for name in ("run", "token", "attention")})
    except FileNotFoundError:
        return default
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s does not hold costs (%s); using the defaults", file, error)
        return default
