"""CUDA devices: a session and a thread for each, behind what looks like one session.

ONNX Runtime's attention kernels on one CUDA session were reported not to be safe for several threads (onnxruntime
#18854, #21413), and its captured graphs belong to the thread that captured them. So all runs of a device are its own
thread's; whoever calls has packed the tokens before and unpacks the results after, so that the next micro-batch is
ready when one is done.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import DeviceError, EncortError, ModelClosedError
from encort.runtime.cuda.cuda_graphs import CapturedSession
from encort.runtime.cuda.packing import Packing, packed_specs
from encort.runtime.cuda.pinned_memory import Bytes, HostBuffer, ordinary, page_locked
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import ExecutionSlots
from encort.runtime.engine.session import CUDA_PROVIDER, Session, TensorSpecs

SIZES = (1024, 4096, 16384)
"""Tokens a run: enough to fill a device at last, and few enough that memory is bounded."""
PLACES = 4 * SIZES[-1]
"""Rows of a run times the longest."""
COSTS = Costs(run=4e-4, token=6e-7, attention=0.0)
"""Of BERT-base in float16, roughly, on a large device; packed attention sees no padding."""
_OUT_OF_MEMORY = ("Failed to allocate memory", "is smaller than requested bytes", "out of memory")
"""In the words of ONNX Runtime and of CUDA."""
OPTIONS = {
    # Not more memory than asked for, since it is bounded by the tokens of a run.
    "arena_extend_strategy": "kSameAsRequested",
    "enable_cuda_graph": "1",
    "enable_skip_layer_norm_strict_mode": "1",  # norms in float32
    "sdpa_kernel": "3",  # flash and memory-efficient attention
    "use_tf32": "0",  # float32 is what it says
}


def open_devices(
    graph: Path, variant: Variant, devices: Sequence[int], provider_options: Mapping[str, str], *, longest: int
) -> "DeviceSessions":
    """Sessions of a packed graph on CUDA devices.

    Args:
        provider_options: Passed through, over `OPTIONS`.
        longest: Most tokens of a text.

    Raises:
        DeviceError: CUDA or a device cannot be had.
    """

    def open_on(number: int) -> PackedRunner:
        options = {**OPTIONS, **provider_options, "device_id": str(number)}
        session = Session(graph, variant, threads=1, provider=CUDA_PROVIDER, provider_options=options)
        if options["enable_cuda_graph"] == "0":
            return session
        return CapturedSession(session, variant, longest=longest, device="cuda", number=number)

    return DeviceSessions(variant, open_on, devices, allocate=page_locked)


def slots(devices: Sequence[int]) -> ExecutionSlots:
    """A micro-batch runs on each device, and one is ready for it."""
    return ExecutionSlots(parallel=len(devices), in_flight=2 * len(devices), sizes=SIZES, max_padded_tokens=PLACES)


class PackedRunner(Protocol):
    """A packed session, or what stands for one; for one thread."""

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None: ...


class DeviceSessions:
    """Packed sessions of one variant, a device each; any number of threads may call `run`."""

    def __init__(
        self,
        variant: Variant,
        open_on: Callable[[int], PackedRunner],
        devices: Sequence[int],
        *,
        allocate: Callable[[int], Bytes] = ordinary,
    ) -> None:
        """Open a session on every device, in the thread that will run it.

        Args:
            open_on: Opens the session of a device.
            devices: Their numbers.
            allocate: Gives host memory, in the thread of a device.

        Raises:
            DeviceError: One cannot be had.
        """
        self.devices: list[DeviceSession] = []
        self._counts, self._waiting = threading.Lock(), Counter[DeviceSession]()
        try:
            for number in devices:
                self.devices.append(DeviceSession(variant, open_on, number, allocate))
        except BaseException:
            self.close()
            raise

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """One micro-batch of padded rows on the device that has least to do; see `Session.run`."""
        with self._counts:
            device = min(self.devices, key=self._waiting.__getitem__)
            self._waiting[device] += 1
        try:
            return device.run(outputs, inputs)
        finally:
            with self._counts:
                self._waiting[device] -= 1

    def warm_up(self, longest: int) -> None:
        """Capture the graphs of small runs, and take the memory of the largest, on one device after the other.

        Raises:
            DeviceError: One could not; load the model again.
        """
        for device in self.devices:
            device.warm_up(longest)

    def close(self) -> None:
        for device in self.devices:
            device.close()


class DeviceSession:
    """One device, and the one thread that speaks to it; callers pack and unpack in their own."""

    def __init__(
        self, variant: Variant, open_on: Callable[[int], PackedRunner], number: int, allocate: Callable[[int], Bytes]
    ) -> None:
        self._variant, self._number, self._allocate = variant, number, allocate
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"encort-cuda-{number}")
        self._buffers: list[HostBuffer] = []
        self._session: PackedRunner | None = None
        try:
            with self._said_without_memory("the model"):
                self._session = self._thread.submit(open_on, number).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """One micro-batch of padded rows; see `Session.run`.

        Raises:
            DeviceError: The device has no memory for it.
        """
        session, packing = self._opened, Packing(inputs["attention_mask"] == 1)
        packed = packing.inputs(inputs)
        rows, sequence = packed["token_offset"].shape
        of_inputs, of_outputs = packed_specs(
            self._variant, rows=rows, tokens=len(packed["input_ids"]), sequence=sequence
        )
        with self._arrays({**of_inputs, **{name: of_outputs[name] for name in outputs}}) as arrays:
            for name in of_inputs:
                arrays[name][...] = packed[name]
            with self._said_without_memory(f"a run of {len(packed['input_ids'])} tokens"):
                self._thread.submit(
                    session.run_into,
                    {name: arrays[name] for name in outputs},
                    {name: arrays[name] for name in of_inputs},
                ).result()
            return [
                packing.padded(arrays[name]) if self._variant.is_tokenwise(name) else arrays[name].copy()
                for name in outputs
            ]

    @contextmanager
    def _said_without_memory(self, what: str) -> Iterator[None]:
        """Say it where the device has no memory for something."""
        try:
            yield
        except EncortError as error:
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise DeviceError(
                    f"GPU {self._number} has no memory for {what}: free some, or raise gpu_mem_limit of "
                    f"provider_options where it is set ({error})"
                ) from error
            raise

    @contextmanager
    def _arrays(self, places: TensorSpecs) -> Iterator[dict[str, NDArray[Any]]]:
        """Arrays in memory that no other run has meanwhile."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = HostBuffer(self._allocate)
        if not buffer.holds(places):
            self._thread.submit(buffer.grow, places).result()
        yield buffer.arrays(places)
        # Not after an error: a caller who was interrupted leaves a run that the device is not done with.
        if self._session is not None:
            self._buffers.append(buffer)

    def warm_up(self, longest: int) -> None:
        """See `DeviceSessions.warm_up`."""
        if isinstance(self._opened, CapturedSession):
            self._capture(self._opened)
        longest_text, largest_run = np.ones((1, longest), np.int64), _largest_run(longest)
        for mask, outputs in ((longest_text, list(self._variant.outputs)), (largest_run, [self._variant.vector])):
            self.run(outputs, dict.fromkeys(self._variant.inputs, 0 * mask) | {"attention_mask": mask})

    def _capture(self, session: CapturedSession) -> None:
        try:
            with self._said_without_memory("captured graphs"):
                self._thread.submit(session.capture).result()
        except DeviceError:
            raise
        except EncortError as error:
            raise DeviceError(
                f"GPU {self._number} captured no graphs: warm up before anything else of this process uses "
                f'a GPU, or give provider_options={{"enable_cuda_graph": "0"}}; load the model again ({error})'
            ) from error

    def close(self) -> None:
        """Let the thread go, and with it the session and all memory."""
        if self._session is not None:
            self._thread.submit(self._let_go)
        self._thread.shutdown()

    @property
    def _opened(self) -> PackedRunner:
        if self._session is None:
            raise ModelClosedError("this model was closed; load the bundle again")
        return self._session

    def _let_go(self) -> None:
        self._session = None
        self._buffers.clear()


def _largest_run(longest: int) -> NDArray[np.int64]:
    """Mask of about as many tokens, and as many places if padded, as a run may have."""
    lengths = np.full(max(1, PLACES // longest), max(1, longest * SIZES[-1] // PLACES))
    lengths[0] = longest
    return (np.arange(longest) < lengths[:, None]).astype(np.int64)
