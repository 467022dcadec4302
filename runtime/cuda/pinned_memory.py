"""Host memory for the inputs and outputs of CUDA runs: page-locked for fast copies, and reused from run to run."""

import ctypes
import itertools
import logging
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.forks import keep_in_children
from encort.runtime.engine.session import CUDA_MAJOR, TensorSpecs
from encort.runtime.engine.thread_pool import ThreadPool

log = logging.getLogger("encort")

Bytes = NDArray[np.uint8]
Allocate = Callable[[int], Bytes]
"""Returns memory of that many bytes."""
_ALIGNMENT = 64
_PORTABLE = 1
"""`cudaHostAllocPortable`: page-locked for every device."""


def allocate_pinned(size: int) -> Bytes:
    """Allocate page-locked memory, which CUDA copies from and to directly.

    If CUDA has none to give, log a warning and allocate pageable memory, which CUDA copies twice. Call it in a thread
    that already uses a device.

    Args:
        size: In bytes.
    """
    pointer = ctypes.c_void_p()
    try:
        library = ctypes.CDLL(f"libcudart.so.{CUDA_MAJOR}")
    except OSError as error:
        return _allocate_pageable_instead(size, error)
    status = library.cudaHostAlloc(ctypes.byref(pointer), ctypes.c_size_t(size), _PORTABLE)
    if status != 0 or pointer.value is None:
        # This clears the error. Otherwise the next run of ONNX Runtime in this thread would report it as its own.
        library.cudaGetLastError()
        return _allocate_pageable_instead(size, f"CUDA error {status}")
    memory = (ctypes.c_uint8 * size).from_address(pointer.value)
    keep_in_children(memory)
    # Not at exit: the end of the process frees the memory by itself.
    weakref.finalize(memory, library.cudaFreeHost, pointer).atexit = False
    return np.frombuffer(memoryview(memory), np.uint8)


def _allocate_pageable_instead(size: int, reason: object) -> Bytes:
    log.warning("copies to and from the GPU are slower than they could be: no page-locked memory (%s)", reason)
    return allocate_pageable(size)


def allocate_pageable(size: int) -> Bytes:
    """Allocate ordinary memory.

    Args:
        size: In bytes.
    """
    return np.empty(size, np.uint8)


class HostBuffer:
    """Memory for the inputs and outputs of one run at a time."""

    def __init__(self, allocate: Allocate) -> None:
        """Make an empty buffer; `grow` allocates its memory."""
        self._allocate, self._memory = allocate, allocate_pageable(0)

    def fits(self, specs: TensorSpecs) -> bool:
        """Return whether the memory is large enough for arrays of these shapes and dtypes."""
        return _ends(specs)[-1] <= len(self._memory)

    def grow(self, specs: TensorSpecs) -> None:
        """Free the memory, and allocate enough for these arrays."""
        self._memory = allocate_pageable(0)
        # A power of two, so that few runs later the buffer has reached its final size.
        self._memory = self._allocate(2 ** math.ceil(math.log2(_ends(specs)[-1])))

    def arrays(self, specs: TensorSpecs) -> dict[str, NDArray[Any]]:
        """Return arrays of these shapes and dtypes, side by side in the memory, with undefined contents.

        Arrays that were returned earlier share the memory.
        """
        return {
            name: np.frombuffer(self._memory, dtype, math.prod(shape), offset=start).reshape(shape)
            for (name, (shape, dtype)), start in zip(specs.items(), [0, *_ends(specs)], strict=False)
        }


class BufferPool:
    """Buffers of one device, lent to one run each.

    The invariant: a buffer returns to the pool only after its run has ended without an error. Otherwise the device may
    still use it (a caller who was interrupted leaves a run behind that goes on), so the pool drops the buffer. Its
    memory is freed when the run lets the last array go.
    """

    def __init__(self, allocate: Allocate, device_thread: ThreadPool) -> None:
        """Make an empty pool.

        Args:
            allocate: Called in the device's thread.
            device_thread: The one thread that uses the device.
        """
        self._allocate, self._device_thread = allocate, device_thread
        self._free: list[HostBuffer] = []
        self._is_open = True

    @contextmanager
    def borrow(self, specs: TensorSpecs) -> Iterator[dict[str, NDArray[Any]]]:
        """Lend arrays of these shapes and dtypes that share memory with no other run."""
        buffer = self._take()
        if not buffer.fits(specs):
            self._device_thread.submit(buffer.grow, specs).result()
        yield buffer.arrays(specs)
        # There is no try/finally: after an error this line must not run. See the invariant.
        self._give_back(buffer)

    def close(self) -> None:
        """Drop all buffers; those that are lent are dropped when they come back."""
        self._is_open = False
        self._free.clear()

    def _take(self) -> HostBuffer:
        try:
            return self._free.pop()
        except IndexError:
            return HostBuffer(self._allocate)

    def _give_back(self, buffer: HostBuffer) -> None:
        if self._is_open:
            self._free.append(buffer)


def _ends(specs: TensorSpecs) -> list[int]:
    """Return where each array ends, in bytes."""
    return list(itertools.accumulate(_aligned_bytes(shape, dtype) for shape, dtype in specs.values()))


def _aligned_bytes(shape: Sequence[int], dtype: type[np.generic]) -> int:
    """Return the size of an array, rounded up to where the next one may start."""
    return math.ceil(math.prod(shape) * np.dtype(dtype).itemsize / _ALIGNMENT) * _ALIGNMENT
