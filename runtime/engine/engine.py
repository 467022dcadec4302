"""Micro-batches to arrays: the sessions of a model, its threads, and its one budget of cores.

Many micro-batches run side by side, one core each, which is how a core does most. A micro-batch that is alone runs
over all cores, which is how it is done soonest. Each way has a session of its own, since ONNX Runtime fixes the
threads of a session when it opens; the second opens when it is first worth it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Layout, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import EncortError, ModelClosedError
from encort.runtime.engine.costs import Costs, measure_costs
from encort.runtime.engine.pending import Pending
from encort.runtime.engine.planner import ExecutionSlots, plan
from encort.runtime.engine.session import Runner
from encort.runtime.engine.spread import BoundedMap
from encort.runtime.engine.stats import Recorder
from encort.runtime.text.token_batch import TokenBatch

log = logging.getLogger("encort")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Engine:
    """Runs the graph of one variant on a budget of cores; any number of threads may call it."""

    def __init__(
        self,
        variant: Variant,
        open_session: Callable[[int], Runner],
        *,
        threads: int,
        costs: Costs,
        may_widen: bool,
        slots: ExecutionSlots | None = None,
    ) -> None:
        """Open the first session.

        Args:
            open_session: Opens a session of that many threads.
            threads: Cores to keep busy.
            costs: Of a run, for the planner.
            may_widen: A session may have several threads, as those of the CPU provider.
            slots: Of devices that run the micro-batches; None leaves them to the cores.
        """
        self.variant, self.threads = variant, threads
        self.slots = slots or ExecutionSlots.of_cores(threads)
        self.costs = costs
        self.recorder = Recorder()
        self._open_session, self._may_widen = open_session, may_widen
        self._one_core: Runner | None = open_session(1)
        self._all_cores: Runner | None = None
        self._runs_alone = 0
        self._running = 0
        self._changed, self._opening = threading.Condition(), threading.Lock()
        self._workers = ThreadPoolExecutor(max(threads, self.slots.in_flight), thread_name_prefix="encort")
        self._process = os.getpid()
        self._closed = False

    def run(self, batch: TokenBatch, outputs: Sequence[str]) -> list[FloatArray]:
        """Outputs for all rows of a batch: one row a row, or one row a token as in `batch.ids`.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: ONNX Runtime refused a run, or the process is a fork.
        """
        return self.begin(batch, outputs).result()

    def begin(self, batch: TokenBatch, outputs: Sequence[str]) -> Pending[list[FloatArray]]:
        """Begin what `run` does; a micro-batch that is alone is run by who waits for it."""
        self.check_open()
        arrays = [self._empty(batch, output) for output in outputs]
        micro_batches = plan(batch.lengths, self.slots, costs=self.costs, mixed=self.mixes_lengths)

        def fill(indices: Int64Array, *, alone: bool = False) -> None:
            found = self.run_rows(batch.rows(indices), outputs, alone=alone)
            for output, array, rows in zip(outputs, arrays, found, strict=True):
                if self.is_tokenwise(output):
                    positions, counts = batch.tokens(indices)
                    array[positions[counts]] = rows[counts]
                else:
                    array[indices] = rows

        if len(micro_batches) == 1 and self.is_idle:

            def run_alone() -> list[FloatArray]:
                with self._counted_as_running():
                    self.check_open()  # after the count, for which `close` waits
                    fill(micro_batches[0], alone=True)
                return arrays

            return Pending(run_alone, cancel=lambda: None)
        spread = BoundedMap(self.submit, fill, micro_batches, parallel=self.slots.parallel + self.slots.in_flight)

        def wait() -> list[FloatArray]:
            spread.result()
            return arrays

        return Pending(wait, spread.cancel)

    def run_rows(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, alone: bool) -> list[FloatArray]:
        """One micro-batch in the calling thread.

        Args:
            inputs: Of the graph, by name, `attention_mask` always among them.
            alone: Nothing else waits for a core, so it may have all of them.
        """
        mask = inputs["attention_mask"]
        with self._counted_as_running():
            session = self._session(alone=alone)
            begin = time.perf_counter()
            try:
                arrays = session.run(outputs, inputs)
            except BaseException:
                self.recorder.count(failures=1)
                raise
            self.recorder.observe("run_seconds", time.perf_counter() - begin)
        tokens = int(mask.sum())
        self.recorder.count(texts=len(mask), tokens=tokens, padding=mask.size - tokens, runs=1)
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
        except RuntimeError as error:
            if not self._closed:
                raise
            raise ModelClosedError(_CLOSED) from error  # by another thread meanwhile

    def check_open(self) -> None:
        """Refuse to work after a close, and in a forked child.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: The process is a fork.
        """
        if self._closed:
            raise ModelClosedError(_CLOSED)
        if self.is_fork:
            raise EncortError("this model was loaded before a fork, which its threads did not survive; load it after")

    @property
    def mixes_lengths(self) -> bool:
        """Whether rows of different lengths share runs without being computed at one length."""
        return self.variant.layout in (Layout.RAGGED, Layout.PACKED)

    @property
    def is_fork(self) -> bool:
        """Whether this is a child of the process that opened the engine, without its threads."""
        return os.getpid() != self._process

    @property
    def is_idle(self) -> bool:
        return self._running == 0

    def is_tokenwise(self, output: str) -> bool:
        """Whether the output has a row a token and not a row a text."""
        return self.variant.is_tokenwise(output)

    def warm_up(self, longest: int) -> None:
        """Open both sessions and let them take the memory that a text of that many tokens needs."""
        self.check_open()
        names = list(self.variant.outputs)
        for session in {self._narrow, self._session(alone=True), self._session(alone=True)}:
            for length in (1, longest):
                session.run(names, self._any_rows(1, length))
        for done in [self.submit(os.getpid) for _ in range(self.threads)]:
            done.result()

    def measure_costs(self, longest: int) -> Costs:
        """Measure the costs of a run on this machine, and plan by them from now on."""
        self.check_open()
        names = list(self.variant.outputs)
        self.costs = measure_costs(
            lambda rows, length: self._narrow.run(names, self._any_rows(rows, length)), longest=longest
        )
        return self.costs

    def close(self) -> None:
        """Finish the micro-batches that run, and let threads and sessions go; closing twice is fine."""
        self._closed = True
        if not self.is_fork:
            self._workers.shutdown()
            with self._changed:
                self._changed.wait_for(lambda: self.is_idle)
                self._one_core = self._all_cores = None

    def _session(self, *, alone: bool) -> Runner:
        """The session for a run; a process that runs a single text is done before a second one has opened."""
        if not alone or self.threads == 1 or not self._may_widen:
            return self._narrow
        with self._opening:
            self._runs_alone += 1
            if self._all_cores is None and self._runs_alone > 1:
                self._all_cores = self._opened_wide()
            return self._all_cores or self._narrow

    @property
    def _narrow(self) -> Runner:
        if self._one_core is None:
            raise ModelClosedError(_CLOSED)
        return self._one_core

    def _opened_wide(self) -> Runner:
        try:
            return self._open_session(self.threads)
        except EncortError as error:
            log.warning("single texts run on one core, because the model cannot be opened again: %s", error)
            return self._narrow

    @contextmanager
    def _counted_as_running(self) -> Iterator[None]:
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _any_rows(self, rows: int, length: int) -> dict[str, Int64Array]:
        ids = np.zeros((rows, length), np.int64)
        return dict.fromkeys(self.variant.inputs, ids) | {"attention_mask": ids + 1}

    def _empty(self, batch: TokenBatch, output: str) -> FloatArray:
        rows = len(batch.ids) if self.is_tokenwise(output) else len(batch)
        sizes = [int(axis) for axis in self.variant.outputs[output] if axis.isdecimal()]
        return np.empty((rows, *sizes), np.float32)


_CLOSED = "this model was closed; load the bundle again"
