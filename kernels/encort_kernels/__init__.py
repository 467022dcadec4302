"""The shared library with the operators of encort's native variants."""

import ctypes
from pathlib import Path

LIBRARY = Path(__file__).parent / "libencort_kernels.so"
"""Library for `onnxruntime.SessionOptions.register_custom_ops_library`."""


def instruction_set() -> str:
    """Return the instruction set that layers run with on this processor, such as `avx512`.

    The environment variable `ENCORT_KERNELS_ISA` chooses another one. `reference` is plain C++ and slow. The result is
    empty if the processor lacks the chosen one.
    """
    name = ctypes.CDLL(str(LIBRARY)).encort_kernels_instruction_set
    name.restype = ctypes.c_char_p
    return name().decode()
