"""Micro-batches to arrays: the sessions of a model, its threads, and its one budget of cores.

Many micro-batches run side by side, one core each, which is how a core does most. A micro-batch that is alone runs
over all cores, which is how it is done soonest. Each way has a session of its own, since ONNX Runtime fixes the
threads of a session when it opens; the second opens when it is first worth it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encort.runtime.costs import Costs, measure_costs
from encort.runtime.errors import EncortError, ModelClosedError
from encort.runtime.manifest import Variant
from encort.runtime.planner import plan_equal_length
from encort.runtime.session import FloatArray, Session
from encort.runtime.stats import Recorder
from encort.runtime.tokens import Int64Array, TokenBatch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Engine:
    """Runs the graph of one variant on a budget of cores; any number of threads may call it."""

    def __init__(self, variant: Variant, open_session: Callable[[int], Session], *, threads: int, costs: Costs) -> None:
        """Open the first session.

        Args:
            open_session: Opens a session of that many threads.
            threads: Cores to keep busy.
            costs: Of a run, for the planner.
        """
        self.variant, self.threads = variant, threads
        self.costs = costs
        self.recorder = Recorder()
        self._open_session = open_session
        self._narrow = open_session(1)
        self._wide: Session | None = None
        self._runs_alone = 0
        self._running = 0
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="encort")
        self._process = os.getpid()
        self._closed = False

    def run(self, batch: TokenBatch, outputs: Sequence[str]) -> list[FloatArray]:
        """Outputs for all rows of a batch: one row a row, or one row a token as in `batch.ids`.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: ONNX Runtime refused a run, or the process is a fork.
        """
        self.check_open()
        arrays = [self._empty(batch, output) for output in outputs]
        plan = plan_equal_length(batch.lengths, workers=self.threads, costs=self.costs)

        def fill(indices: Int64Array, *, alone: bool) -> None:
            found = self.run_rows(batch.rows(indices), outputs, alone=alone)
            for output, array, rows in zip(outputs, arrays, found, strict=True):
                array[batch.positions(indices) if self.is_tokenwise(output) else indices] = rows

        if len(plan) == 1 and self.is_idle:
            fill(plan[0], alone=True)
        else:
            self._wait([self.submit(fill, indices, alone=False) for indices in plan])
        self.recorder.count(truncated=int(batch.truncated.sum()))
        return arrays

    def run_rows(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, alone: bool) -> list[FloatArray]:
        """One micro-batch in the calling thread.

        Args:
            inputs: Of the graph, by name.
            alone: Nothing else waits for a core, so it may have all of them.
        """
        rows, length = inputs["input_ids"].shape
        with self._counted_as_running():
            session = self._session(alone=alone)
            begin = time.perf_counter()
            try:
                arrays = session.run(outputs, inputs)
            except BaseException:
                self.recorder.count(failures=1)
                raise
            self.recorder.observe("run_seconds", time.perf_counter() - begin)
        self.recorder.count(texts=rows, tokens=rows * length, runs=1)
        return arrays

    def submit(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> "Future[Result]":
        """Call a function in one of the threads.

        Raises:
            ModelClosedError: The engine was closed.
        """
        self.check_open()
        try:
            return self._workers.submit(function, *arguments, **options)
        except RuntimeError as error:  # closed by another thread meanwhile
            raise ModelClosedError(_CLOSED) from error

    def check_open(self) -> None:
        """Refuse to work after a close, and in a forked child.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: The process is a fork.
        """
        if self._closed:
            raise ModelClosedError(_CLOSED)
        if os.getpid() != self._process:
            raise EncortError("this model was loaded before a fork, which its threads did not survive; load it after")

    @property
    def is_idle(self) -> bool:
        return self._running == 0

    def is_tokenwise(self, output: str) -> bool:
        """Whether the output has a row a token and not a row a text."""
        return "sequence" in self.variant.outputs[output]

    def warm_up(self, longest: int) -> None:
        """Open both sessions and let them take the memory that a text of that many tokens needs."""
        names = list(self.variant.outputs)
        for session in {self._narrow, self._session(alone=True), self._session(alone=True)}:
            for length in (1, longest):
                session.run(names, self._any_rows(1, length))
        for done in [self.submit(os.getpid) for _ in range(self.threads)]:
            done.result()

    def measure_costs(self, longest: int) -> Costs:
        """Measure the costs of a run on this machine, and plan by them from now on."""
        names = list(self.variant.outputs)
        self.costs = measure_costs(
            lambda rows, length: self._narrow.run(names, self._any_rows(rows, length)), longest=longest
        )
        return self.costs

    def close(self) -> None:
        """Finish the micro-batches that run and let the threads go; closing twice is fine."""
        self._closed = True
        self._workers.shutdown()

    def _session(self, *, alone: bool) -> Session:
        """The session for a run; a process that runs a single text is done before a second one has opened."""
        if not alone or self.threads == 1:
            return self._narrow
        with self._opening:
            self._runs_alone += 1
            if self._wide is None and self._runs_alone > 1:
                self._wide = self._open_session(self.threads)
            return self._wide or self._narrow

    @contextmanager
    def _counted_as_running(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    @staticmethod
    def _wait(futures: "Sequence[Future[None]]") -> None:
        """Wait for all; the first error is raised here."""
        try:
            for future in futures:
                future.result()
        finally:
            # After an error or an interrupt, what has not begun is not begun.
            for future in futures:
                future.cancel()

    def _any_rows(self, rows: int, length: int) -> dict[str, Int64Array]:
        ids = np.zeros((rows, length), np.int64)
        return dict.fromkeys(self.variant.inputs, ids) | {"attention_mask": ids + 1}

    def _empty(self, batch: TokenBatch, output: str) -> FloatArray:
        rows = len(batch.ids) if self.is_tokenwise(output) else len(batch)
        sizes = [int(axis) for axis in self.variant.outputs[output] if axis.isdecimal()]
        return np.empty((rows, *sizes), np.float32)


_CLOSED = "this model was closed; load the bundle again"
