"""Token ids to arrays: the sessions of a model, its threads, and its one budget of cores.

Many micro-batches run side by side, one core each: that gives the most throughput. A micro-batch that runs alone takes
all cores: that gives the lowest latency. ONNX Runtime fixes the number of threads when a session opens, so each way has
a session of its own. The second session opens when a second micro-batch runs alone.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import ROW_INPUTS, Layout, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import EncortError, ModelClosedError
from encort.runtime.common.forks import check_same_process, new_lock, new_reentrant_lock
from encort.runtime.engine.costs import Costs, measure_costs
from encort.runtime.engine.future import Future
from encort.runtime.engine.pending import BoundedMap
from encort.runtime.engine.planner import ExecutionSlots, plan
from encort.runtime.engine.session import Runner
from encort.runtime.engine.stats import Recorder
from encort.runtime.engine.thread_pool import ThreadPool
from encort.runtime.text.token_batch import TokenBatch

log = logging.getLogger("encort")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

POLL_S = 0.005
"""Seconds between two looks of `close` at what still runs. An interrupt in `Condition.wait` would leave its lock
released, so that the caller gets a RuntimeError in place of its own exception, such as KeyboardInterrupt."""


class Engine:
    """Runs the graph of one variant on a budget of cores. Any number of threads may call it."""

    def __init__(
        self,
        variant: Variant,
        open_session: Callable[[int], Runner],
        *,
        threads: int,
        costs: Costs,
        has_all_cores_session: bool,
        slots: ExecutionSlots | None = None,
    ) -> None:
        """Open the session for single cores.

        Args:
            variant: Graph to run.
            open_session: Opens a session with the given number of threads.
            threads: Cores to keep busy.
            costs: Cost model of the planner.
            has_all_cores_session: Whether a session may use several threads, as on the CPU provider.
            slots: Number and size of the micro-batches that run in parallel; None: one per core.
        """
        self.variant, self.threads, self.costs = variant, threads, costs
        self.slots = slots or ExecutionSlots.of_cores(threads)
        self.recorder = Recorder()
        self._open_session, self._has_all_cores_session = open_session, has_all_cores_session
        self._single_core: Runner | None = open_session(1)
        self._threads = ThreadPool(max(threads, self.slots.in_flight), name="encort")
        self._all_cores: Runner | None = None
        self._runs_alone = 0
        self._running: set[object] = set()
        self._lock, self._opening = new_reentrant_lock(), new_lock()
        self._process = os.getpid()
        self._closed = False

    def run(self, batch: TokenBatch, outputs: Sequence[str]) -> list[FloatArray]:
        """Return outputs of the graph for all rows of a batch.

        A single micro-batch runs in the calling thread, on all cores, if nothing else runs.

        Args:
            batch: Rows of token ids.
            outputs: Names of the graph's outputs.

        Returns:
            One float32 array per output: `(rows, ...)`, or `(tokens, ...)` in the order of `batch.ids`.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: ONNX Runtime refused a run, or the process is a fork.
        """
        self.check_open()
        micro_batches, arrays = self._plan(batch), _OutputArrays(self.variant, batch, outputs)
        if len(micro_batches) != 1 or not self.is_idle:
            return _PendingRun(self, micro_batches, arrays).result()
        arrays.put(micro_batches[0], self.run_micro_batch(batch.rows(micro_batches[0]), outputs, alone=True))
        return arrays.values

    def start(self, batch: TokenBatch, outputs: Sequence[str]) -> "_PendingRun":
        """Start `run` in the engine's threads.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: The process is a fork.
        """
        self.check_open()
        return _PendingRun(self, self._plan(batch), _OutputArrays(self.variant, batch, outputs))

    def run_micro_batch(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, alone: bool
    ) -> list[FloatArray]:
        """Run one micro-batch in the calling thread, and count it as running meanwhile.

        A run is counted by a token of its own: adding and removing it stays right if an exception interrupts either.

        Args:
            inputs: Inputs of the graph by name, each `(rows, sequence)` int64, and always `attention_mask`.
            outputs: Names of the graph's outputs.
            alone: Nothing else waits for a core, so the run may take all of them.

        Returns:
            One float32 array per output: `(rows, ...)` or `(rows, sequence, ...)`.
        """
        token = object()
        try:
            try:
                with self._lock:
                    self._running.add(token)
                return self._run(inputs, outputs, alone=alone)
            finally:
                self._stop_counting(token)
        except BaseException:  # also an interrupt of the line above
            self._stop_counting(token)
            raise

    def submit(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Future[Result]:
        """Call a function in one of the engine's threads.

        Raises:
            ModelClosedError: The engine was closed.
        """
        self.check_open()
        try:
            return self._threads.submit(function, *arguments, **options)
        except RuntimeError as error:
            if not self._closed:
                raise
            raise ModelClosedError(_CLOSED) from error  # another thread closed it meanwhile

    def check_open(self) -> None:
        """Refuse to work after `close` and in a forked child.

        Raises:
            ModelClosedError: The engine was closed.
            EncortError: The process is a fork.
        """
        if self._closed:
            raise ModelClosedError(_CLOSED)
        check_same_process(self._process)

    @property
    def mixes_lengths(self) -> bool:
        """Whether rows of different lengths can share a run without computing all of them at the longest length."""
        return self.variant.layout in (Layout.RAGGED, Layout.PACKED)

    @property
    def is_fork(self) -> bool:
        """Whether this is a forked child of the process that opened the engine, without its threads."""
        return os.getpid() != self._process

    @property
    def is_idle(self) -> bool:
        """Whether no micro-batch runs."""
        return not self._running

    def warm_up(self, max_length: int) -> None:
        """Open both sessions and take the memory that a text of `max_length` tokens needs."""
        self.check_open()
        names = list(self.variant.outputs)
        for session in {self._single_core_session, self._session(alone=True), self._session(alone=True)}:
            for length in (1, max_length):
                session.run(names, self._sample_rows(1, length))

    def measure_costs(self, max_length: int) -> Costs:
        """Measure the costs of a run on this machine and plan by them from now on."""
        self.check_open()
        names = list(self.variant.outputs)
        self.costs = measure_costs(
            lambda rows, length: self._single_core_session.run(names, self._sample_rows(rows, length)),
            max_length=max_length,
        )
        return self.costs

    def close(self) -> None:
        """Finish the micro-batches that run, then drop threads and sessions. Closing twice is fine."""
        self._closed = True
        if not self.is_fork:
            self._threads.close()
            while not self.is_idle:
                time.sleep(POLL_S)
            self._single_core = self._all_cores = None

    def _plan(self, batch: TokenBatch) -> list[Int64Array]:
        return plan(batch.lengths, self.slots, costs=self.costs, mixed=self.mixes_lengths)

    def _run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, alone: bool) -> list[FloatArray]:
        """Run one micro-batch and count it in the stats."""
        session, mask = self._session(alone=alone), inputs["attention_mask"]
        start = time.perf_counter()
        try:
            arrays = session.run(outputs, inputs)
        except BaseException:
            self.recorder.count(failures=1)
            raise
        tokens = int(mask.sum())
        self.recorder.observe("run_seconds", time.perf_counter() - start)
        self.recorder.count(texts=len(mask), tokens=tokens, padding=mask.size - tokens, runs=1)
        return arrays

    def _session(self, *, alone: bool) -> Runner:
        """Return the session for a run. A process that runs one text only never opens the second session."""
        single_core = self._single_core_session
        if not alone or self.threads == 1 or not self._has_all_cores_session:
            return single_core
        with self._opening:
            self._runs_alone += 1
            if self._all_cores is None and self._runs_alone > 1:
                self._all_cores = self._open_all_cores_session()
            return self._all_cores or single_core

    @property
    def _single_core_session(self) -> Runner:
        if self._single_core is None:
            raise ModelClosedError(_CLOSED)
        return self._single_core

    def _open_all_cores_session(self) -> Runner:
        try:
            return self._open_session(self.threads)
        except EncortError as error:
            log.warning("single texts run on one core, because the model cannot be opened again: %s", error)
            return self._single_core_session

    def _stop_counting(self, token: object) -> None:
        with self._lock:
            self._running.discard(token)

    def _sample_rows(self, rows: int, length: int) -> dict[str, Int64Array]:
        ids = np.zeros((rows, length), np.int64)
        of_rows = dict.fromkeys(ROW_INPUTS, ids[:, 0])
        return dict.fromkeys(self.variant.inputs, ids) | {"attention_mask": ids + 1, **of_rows}


class _OutputArrays:
    """Outputs of a whole batch, filled one micro-batch at a time.

    Attributes:
        values: One float32 array per output.
    """

    def __init__(self, variant: Variant, batch: TokenBatch, outputs: Sequence[str]) -> None:
        self.batch, self.outputs = batch, outputs
        self._tokenwise = [variant.is_tokenwise(output) for output in outputs]
        self.values: list[FloatArray] = [
            np.empty((len(batch.ids) if tokenwise else len(batch), *_fixed_axes(variant, output)), np.float32)
            for output, tokenwise in zip(outputs, self._tokenwise, strict=True)
        ]

    def put(self, indices: Int64Array, arrays: Sequence[FloatArray]) -> None:
        """Copy the outputs of one micro-batch, whose rows have these indices in the batch."""
        for tokenwise, value, array in zip(self._tokenwise, self.values, arrays, strict=True):
            if tokenwise:
                positions, counts = self.batch.tokens(indices)
                value[positions[counts]] = array[counts]
            else:
                value[indices] = array


class _PendingRun:
    """A batch that runs in the engine's threads; see `Pending`."""

    def __init__(self, engine: Engine, micro_batches: Sequence[Int64Array], arrays: _OutputArrays) -> None:
        self._engine, self._arrays = engine, arrays
        # Some run, and as many are ready as the pool has threads, so that no thread waits for this one to submit more.
        in_flight = engine.slots.parallel + engine.slots.in_flight
        self._map = BoundedMap(engine.submit, self._run, micro_batches, in_flight=in_flight)

    def result(self) -> list[FloatArray]:
        """Wait for the outputs."""
        self._map.result()
        return self._arrays.values

    def cancel(self) -> None:
        """Start no more micro-batches."""
        self._map.cancel()

    def _run(self, indices: Int64Array) -> None:
        rows = self._arrays.batch.rows(indices)
        self._arrays.put(indices, self._engine.run_micro_batch(rows, self._arrays.outputs, alone=False))


def _fixed_axes(variant: Variant, output: str) -> list[int]:
    return [int(axis) for axis in variant.outputs[output] if axis.isdecimal()]


_CLOSED = "this model was closed; load the bundle again"
