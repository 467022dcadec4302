"""Stand-ins for the sessions of a model, token batches for them, and a way to hold the runs of a real model."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

import encort
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.engine.engine import Engine
from encort.runtime.text.token_batch import TokenBatch

MakeEngine = Callable[..., Engine]
"""`make_engine(threads=2, layout=..., costs=..., slots=...)`."""


class Fakes:
    """Opens fake sessions and writes down what they run.

    Attributes:
        opened: Number of threads of each session.
        runs: Ids of each run, `[row][position]`; padding is 0.
        threads: Number of threads of the session of each run.
        holds: Runs with this id wait for the event.
        errors: Runs with this id raise the error.
    """

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.runs: list[list[list[int]]] = []
        self.threads: list[int] = []
        self.holds: dict[int, threading.Event] = {}
        self.errors: dict[int, BaseException] = {}
        self._started = threading.Condition()

    def open(self, threads: int) -> "FakeSession":
        self.opened.append(threads)
        return FakeSession(self, threads)

    def hold(self, token: int) -> threading.Event:
        """Make all runs with this id wait for the event that is returned."""
        return self.holds.setdefault(token, threading.Event())

    def release(self) -> None:
        """Let all runs that wait go on."""
        for event in self.holds.values():
            event.set()

    def wait(self, *, runs: int) -> None:
        """Wait until this number of runs have started."""
        with self._started:
            assert self._started.wait_for(lambda: len(self.runs) >= runs, timeout=10)

    def start(self, ids: Int64Array, threads: int) -> None:
        """Write down a run."""
        with self._started:
            self.runs.append(ids.tolist())
            self.threads.append(threads)
            self._started.notify_all()


class FakeSession:
    """A session with three outputs.

    * `sums`: sum of a row's ids and its first id, `(batch, 2)`.
    * `states`: each id times 1, 2 and 3, `(batch, sequence, 3)`.
    * `odd`: zeros, `(batch, sequence)`, although the variant says one row per batch row: windows cannot be stacked.
    """

    def __init__(self, fakes: Fakes, threads: int) -> None:
        self._fakes, self._threads = fakes, threads

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        ids: Int64Array = inputs["input_ids"] * inputs["attention_mask"]
        self._fakes.start(ids, self._threads)
        for token, event in list(self._fakes.holds.items()):
            assert token not in ids or event.wait(30)
        for token, error in self._fakes.errors.items():
            if token in ids:
                raise error
        arrays = {
            "sums": np.stack([ids.sum(axis=1), ids[:, 0]], axis=1),
            "states": ids[:, :, None] * np.array([1, 2, 3]),
            "odd": np.zeros((len(ids), ids.shape[1])),
        }
        return [arrays[output].astype(np.float32) for output in outputs]


def batch_of(*rows: Sequence[int], truncated: Sequence[int] = ()) -> TokenBatch:
    """Return a batch of rows of ids. `truncated` are the indices of the rows that were cut."""
    ids = np.array([token for row in rows for token in row], np.int64)
    return TokenBatch(
        ids=ids,
        type_ids=np.zeros_like(ids),
        cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        truncated=np.isin(np.arange(len(rows)), truncated),
    )


@contextmanager
def hold_runs(model: encort.Model) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Make the micro-batches of a model wait.

    >>> with hold_runs(model) as (started, release):  # doctest: +SKIP
    ...     release.set()

    Yields:
        `started` is set when a run waits; `release` lets all runs go on.
    """
    started, release = threading.Event(), threading.Event()
    engine: Any = model._engine
    run_micro_batch = engine.run_micro_batch

    def run(*arguments: Any, **options: Any) -> list[FloatArray]:
        started.set()
        assert release.wait(30)
        arrays: list[FloatArray] = run_micro_batch(*arguments, **options)
        return arrays

    engine.run_micro_batch = run
    try:
        yield started, release
    finally:
        release.set()
        del engine.run_micro_batch
