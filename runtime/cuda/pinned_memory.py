"""Memory on the host's side of a CUDA device: page-locked, so that copies take the straight way, and used again."""

import ctypes
import itertools
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.engine.session import CUDA_MAJOR, TensorSpecs

log = logging.getLogger("encort")

Bytes = NDArray[np.uint8]
_ALIGNMENT = 64
_PORTABLE = 1
"""`cudaHostAllocPortable`: page-locked for every device."""


def page_locked(size: int) -> Bytes:
    """Memory that CUDA copies from and to by itself; where it gives none, ordinary memory, which is copied twice.

    The thread that asks must be one that uses a device already.
    """
    pointer = ctypes.c_void_p()
    try:
        library = ctypes.CDLL(f"libcudart.so.{CUDA_MAJOR}")
    except OSError as error:
        return _instead(size, error)
    status = library.cudaHostAlloc(ctypes.byref(pointer), ctypes.c_size_t(size), _PORTABLE)
    if status != 0 or pointer.value is None:
        library.cudaGetLastError()  # or ONNX Runtime's next run in this thread would take the error for its own
        return _instead(size, f"CUDA error {status}")
    memory = (ctypes.c_uint8 * size).from_address(pointer.value)
    # A process that ends gives it back by itself.
    weakref.finalize(memory, library.cudaFreeHost, pointer).atexit = False
    return np.frombuffer(memoryview(memory), np.uint8)


def _instead(size: int, why: object) -> Bytes:
    log.warning("copies to and from the GPU are slower than they could be: no page-locked memory (%s)", why)
    return ordinary(size)


def ordinary(size: int) -> Bytes:
    """Memory like any other."""
    return np.empty(size, np.uint8)


class HostBuffer:
    """Memory for the inputs and outputs of one run at a time."""

    def __init__(self, allocate: Callable[[int], Bytes]) -> None:
        """Take none yet.

        Args:
            allocate: Gives memory of that many bytes.
        """
        self._allocate, self._memory = allocate, ordinary(0)

    def holds(self, specs: TensorSpecs) -> bool:
        """Whether there is memory for arrays of these shapes and dtypes."""
        return _ends(specs)[-1] <= len(self._memory)

    def grow(self, specs: TensorSpecs) -> None:
        """Take memory for them, and give back what there was."""
        self._memory = ordinary(0)
        # A power of two, so that it is enough after a few runs.
        self._memory = self._allocate(2 ** math.ceil(math.log2(_ends(specs)[-1])))

    def arrays(self, specs: TensorSpecs) -> dict[str, NDArray[Any]]:
        """Such arrays, side by side, which hold anything; those given before have the same memory."""
        return {
            name: np.frombuffer(self._memory, dtype, math.prod(shape), offset=begin).reshape(shape)
            for (name, (shape, dtype)), begin in zip(specs.items(), [0, *_ends(specs)], strict=False)
        }


def _ends(specs: TensorSpecs) -> list[int]:
    """Where each array ends, in bytes."""
    return list(itertools.accumulate(_bytes(shape, dtype) for shape, dtype in specs.values()))


def _bytes(shape: Sequence[int], dtype: type[np.generic]) -> int:
    """What an array takes until the next one may begin."""
    return math.ceil(math.prod(shape) * np.dtype(dtype).itemsize / _ALIGNMENT) * _ALIGNMENT
