"""CUDA devices: a session and a thread for each, behind what looks like one session.

ONNX Runtime's attention kernels on one CUDA session were reported not to be safe for several threads (onnxruntime
#18854, #21413), and its captured graphs belong to the thread that captured them. So all runs of a device are its own
thread's; whoever calls has packed the tokens before and unpacks the results after, so that the next micro-batch is
ready when one is done.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.captured import CapturedSession
from encort.runtime.costs import Costs
from encort.runtime.errors import DeviceError, EncortError, ModelClosedError
from encort.runtime.manifest import Variant
from encort.runtime.packing import Packing
from encort.runtime.planner import Lanes
from encort.runtime.session import CUDA_PROVIDER, FloatArray, Runs, Session

SIZES = (1024, 4096, 16384)
"""Tokens a run: enough to fill a device at last, and few enough that memory is bounded."""
PLACES = 4 * SIZES[-1]
"""Rows of a run times the longest."""
COSTS = Costs(run=4e-4, token=6e-7, pair=0.0)
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

    def open_on(number: int) -> Runs:
        options = {**OPTIONS, **provider_options, "device_id": str(number)}
        session = Session(graph, variant, threads=1, provider=CUDA_PROVIDER, provider_options=options)
        if options["enable_cuda_graph"] == "0":
            return session
        return CapturedSession(session, variant, longest=longest, device="cuda", number=number)

    return DeviceSessions(variant, open_on, devices)


def lanes(devices: Sequence[int]) -> Lanes:
    """A micro-batch runs on each device, and one is ready for it."""
    return Lanes(at_once=len(devices), begun=2 * len(devices), sizes=SIZES, places=PLACES)


class DeviceSessions:
    """Packed sessions of one variant, a device each; any number of threads may call `run`."""

    def __init__(self, variant: Variant, open_on: Callable[[int], Runs], devices: Sequence[int]) -> None:
        """Open a session on every device, in the thread that will run it.

        Args:
            open_on: Opens the session of a device.
            devices: Their numbers.

        Raises:
            DeviceError: One cannot be had.
        """
        self.devices: list[DeviceSession] = []
        self._counts, self._waiting = threading.Lock(), Counter[DeviceSession]()
        try:
            for number in devices:
                self.devices.append(DeviceSession(variant, open_on, number))
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
        """Capture the graphs of small runs, and take the memory of the longest text, on one device after the other.

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

    def __init__(self, variant: Variant, open_on: Callable[[int], Runs], number: int) -> None:
        self._variant, self._number = variant, number
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"encort-cuda-{number}")
        self._session: Runs | None = None
        try:
            self._session = self._thread.submit(open_on, number).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """One micro-batch of padded rows; see `Session.run`.

        Raises:
            DeviceError: The device has no memory for it.
        """
        packing = Packing(inputs["attention_mask"] == 1)
        feeds = packing.inputs(inputs)
        try:
            arrays = self._thread.submit(self._opened.run, outputs, feeds).result()
        except EncortError as error:
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise DeviceError(
                    f"GPU {self._number} has no memory for a run of {len(feeds['input_ids'])} tokens: free some, or "
                    f"raise gpu_mem_limit of provider_options where it is set ({error})"
                ) from error
            raise
        return [
            packing.padded(array) if self._variant.is_tokenwise(name) else array
            for name, array in zip(outputs, arrays, strict=True)
        ]

    def warm_up(self, longest: int) -> None:
        """See `DeviceSessions.warm_up`."""
        if isinstance(self._opened, CapturedSession):
            try:
                self._thread.submit(self._opened.capture).result()
            except EncortError as error:
                raise DeviceError(
                    f"GPU {self._number} captured no graphs: warm up before anything else of this process uses "
                    f'a GPU, or give provider_options={{"enable_cuda_graph": "0"}}; load the model again ({error})'
                ) from error
        ids = np.zeros((1, longest), np.int64)
        self.run(list(self._variant.outputs), dict.fromkeys(self._variant.inputs, ids) | {"attention_mask": ids + 1})

    def close(self) -> None:
        """Let the thread go, and with it the session and its memory."""
        if self._session is not None:
            self._thread.submit(self._let_go)
        self._thread.shutdown()

    @property
    def _opened(self) -> Runs:
        if self._session is None:
            raise ModelClosedError("this model was closed; load the bundle again")
        return self._session

    def _let_go(self) -> None:
        self._session = None
