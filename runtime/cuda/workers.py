"""GPU workers: one session and one thread for each CUDA device, behind what looks like one session.

Two facts require the thread. Several threads on one CUDA session were reported to be unsafe for ONNX Runtime's
attention kernels (onnxruntime #18854, #21413). And a captured graph belongs to the thread that captured it. So all runs
of a device go through one thread. The callers' own threads pack the tokens before a run and unpack the results after
it, so that the next micro-batch is ready when the device is done with one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import ROW_INPUTS, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import DeviceError, EncortError, ModelClosedError
from encort.runtime.common.forks import new_lock
from encort.runtime.cuda.cuda_graphs import CapturedSession
from encort.runtime.cuda.packing import Packing, packed_specs
from encort.runtime.cuda.pinned_memory import Allocate, BufferPool, allocate_pageable, allocate_pinned
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import ExecutionSlots
from encort.runtime.engine.session import CUDA_PROVIDER, Session
from encort.runtime.engine.thread_pool import ThreadPool

RUN_TOKENS = (1024, 4096, 16384)
"""Tokens per run that plans are tried with: the most fills a large device, and still bounds the memory."""
MAX_PADDED_TOKENS = 4 * RUN_TOKENS[-1]
"""Most rows of a run times its longest row: it bounds the memory of results that are padded."""
COSTS = Costs(run=4e-4, token=6e-7, attention=0.0)
"""Rough costs of BERT-base in float16 on a large device; packed attention sees no padding."""
_OUT_OF_MEMORY = ("Failed to allocate memory", "is smaller than requested bytes", "out of memory")
"""Words of ONNX Runtime and of CUDA."""
PROVIDER_OPTIONS = {
    # Allocate no more memory than was asked for: the tokens per run bound it already.
    "arena_extend_strategy": "kSameAsRequested",
    "enable_cuda_graph": "1",
    "enable_skip_layer_norm_strict_mode": "1",  # norms in float32
    "sdpa_kernel": "3",  # flash and memory-efficient attention
    "use_tf32": "0",  # otherwise float32 products have the precision of TF32
}


def open_devices(
    graph: GraphFiles, variant: Variant, devices: Sequence[int], provider_options: Mapping[str, str], *, max_length: int
) -> "GpuWorkers":
    """Open a packed graph on CUDA devices.

    Args:
        graph: Files of the graph, from `Bundle.graph`.
        variant: Describes the graph.
        devices: Numbers of the devices.
        provider_options: Override `PROVIDER_OPTIONS`.
        max_length: Most tokens of a text.

    Raises:
        DeviceError: CUDA or a device is not available.
    """

    def open_session(number: int) -> PackedRunner:
        options = {**PROVIDER_OPTIONS, **provider_options, "device_id": str(number)}
        session = Session(graph, variant, threads=1, provider=CUDA_PROVIDER, provider_options=options)
        if options["enable_cuda_graph"] == "0":
            return session
        return CapturedSession(session, variant, max_length=max_length, device="cuda", number=number)

    return GpuWorkers(variant, open_session, devices, allocate=allocate_pinned)


def slots(devices: Sequence[int]) -> ExecutionSlots:
    """Return the slots of the devices: each runs one micro-batch, and a second one is ready for it."""
    return ExecutionSlots(
        parallel=len(devices), in_flight=2 * len(devices), sizes=RUN_TOKENS, max_padded_tokens=MAX_PADDED_TOKENS
    )


class PackedRunner(Protocol):
    """A session of a packed graph, or a stand-in for one. Use it from one thread."""

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        """Write the named outputs to the caller's arrays; see `Session.run_into`."""


class GpuWorkers:
    """One worker for each device, all with the same variant; any number of threads may call `run`.

    Attributes:
        workers: In the order of the devices.
    """

    def __init__(
        self,
        variant: Variant,
        open_session: Callable[[int], PackedRunner],
        devices: Sequence[int],
        *,
        allocate: Allocate = allocate_pageable,
    ) -> None:
        """Start a worker for each device.

        Args:
            variant: Describes the graph.
            open_session: Opens the session of the device with this number, in the thread that will run it.
            devices: Numbers of the devices.
            allocate: Allocates host memory, in the thread of a device.

        Raises:
            DeviceError: A device is not available.
        """
        self.workers: list[GpuWorker] = []
        self._lock, self._runs = new_lock(), dict[object, GpuWorker]()
        try:
            for number in devices:
                self.workers.append(GpuWorker(variant, open_session, number, allocate))
        except BaseException:
            self.close()
            raise

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """Run one micro-batch of padded rows on the device with the fewest pending runs; see `Session.run`."""
        run = object()
        try:
            with self._lock:
                runs = Counter(self._runs.values())
                self._runs[run] = worker = min(self.workers, key=runs.__getitem__)
            return worker.run(outputs, inputs)
        finally:
            with self._lock:
                self._runs.pop(run, None)

    def warm_up(self, max_length: int) -> None:
        """Capture the graphs of small runs and allocate the memory of the largest run, one device after the other.

        Args:
            max_length: Most tokens of a text.

        Raises:
            DeviceError: A device failed; load the model again.
        """
        for worker in self.workers:
            worker.warm_up(max_length)

    def close(self) -> None:
        """End all threads, and release the sessions and their memory."""
        for worker in self.workers:
            worker.close()


class GpuWorker:
    """One device and the one thread that uses it. Callers pack and unpack in their own threads."""

    def __init__(
        self, variant: Variant, open_session: Callable[[int], PackedRunner], number: int, allocate: Allocate
    ) -> None:
        """Start the thread and open the session in it; see `GpuWorkers`."""
        self._variant, self._number = variant, number
        self._thread = ThreadPool(1, name=f"encort-cuda-{number}")
        self._buffers = BufferPool(allocate, self._thread)
        self._session: PackedRunner | None = None
        try:
            with self._explain_out_of_memory("the model"):
                self._session = self._thread.submit(open_session, number).result()
        except BaseException:
            self._thread.close()
            raise

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """Run one micro-batch of padded rows; see `Session.run`.

        Raises:
            DeviceError: The device has too little memory for it.
            ModelClosedError: The worker was closed.
        """
        session, packing = self._open_session, Packing(inputs["attention_mask"] == 1)
        packed = packing.pack(inputs)
        rows, sequence = packed["token_offset"].shape
        tokens = len(packed["input_ids"])
        input_specs, output_specs = packed_specs(self._variant, rows=rows, tokens=tokens, sequence=sequence)
        with self._buffers.borrow({**input_specs, **{name: output_specs[name] for name in outputs}}) as arrays:
            for name in input_specs:
                arrays[name][...] = packed[name]
            with self._explain_out_of_memory(f"a run of {tokens} tokens"):
                self._thread.submit(
                    session.run_into,
                    {name: arrays[name] for name in outputs},
                    {name: arrays[name] for name in input_specs},
                ).result()
            return [
                packing.unpack(arrays[name]) if self._variant.is_tokenwise(name) else arrays[name].copy()
                for name in outputs
            ]

    def warm_up(self, max_length: int) -> None:
        """Capture the graphs of small runs and allocate the memory of the largest run; see `GpuWorkers.warm_up`."""
        if isinstance(self._open_session, CapturedSession):
            self._capture(self._open_session)
        longest_text = np.ones((1, max_length), np.int64)
        for mask, outputs in (
            (longest_text, list(self._variant.outputs)),
            (_mask_of_largest_run(max_length), [self._variant.vector]),
        ):
            zeros = dict.fromkeys(ROW_INPUTS, 0 * mask[:, 0]) | {"attention_mask": mask}
            self.run(outputs, dict.fromkeys(self._variant.inputs, 0 * mask) | zeros)

    def close(self) -> None:
        """End the thread, and release the session and its memory."""
        if self._session is not None:
            self._thread.submit(self._release)
        self._thread.close()

    @property
    def _open_session(self) -> PackedRunner:
        if self._session is None:
            raise ModelClosedError("this model was closed; load the bundle again")
        return self._session

    def _capture(self, session: CapturedSession) -> None:
        try:
            with self._explain_out_of_memory("captured graphs"):
                self._thread.submit(session.capture).result()
        except DeviceError:
            raise
        except EncortError as error:
            raise DeviceError(
                f"GPU {self._number} captured no graphs: warm up before anything else of this process uses "
                f'a GPU, or give provider_options={{"enable_cuda_graph": "0"}}; load the model again ({error})'
            ) from error

    @contextmanager
    def _explain_out_of_memory(self, purpose: str) -> Iterator[None]:
        """Turn an error of the device's memory into one that says what to do."""
        try:
            yield
        except EncortError as error:
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise DeviceError(
                    f"GPU {self._number} has no memory for {purpose}: free some, or raise gpu_mem_limit in "
                    f"provider_options if you set it ({error})"
                ) from error
            raise

    def _release(self) -> None:
        """Drop the session and the buffers; their memory is freed in the thread of the device."""
        self._session = None
        self._buffers.close()


def _mask_of_largest_run(max_length: int) -> Int64Array:
    """Return a mask with about as many tokens, and as many padded tokens, as a run may have."""
    rows = max(1, MAX_PADDED_TOKENS // max_length)
    lengths = np.full(rows, max(1, max_length * RUN_TOKENS[-1] // MAX_PADDED_TOKENS))
    lengths[0] = max_length
    return (np.arange(max_length) < lengths[:, None]).astype(np.int64)
