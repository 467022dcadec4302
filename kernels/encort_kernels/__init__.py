"""The shared library with the operators of encort's native variants."""

import base64
import ctypes
import functools
import hashlib
import importlib.metadata
import itertools
from pathlib import Path

LIBRARY = Path(__file__).parent / "libencort_kernels.so"
"""Library for `onnxruntime.SessionOptions.register_custom_ops_library`."""


def instruction_set() -> str:
    """Return the instruction set that layers run with on this processor, such as `avx512`.

    The environment variable `ENCORT_KERNELS_ISA` chooses another one. `reference` is plain C++ and slow. The result is
    empty if the processor lacks the chosen one.

    Raises:
        OSError: The library is damaged, or is for another kind of processor.
    """
    name = _library().encort_kernels_instruction_set
    name.restype = ctypes.c_char_p
    return name().decode()


def phase_seconds() -> dict[str, float]:
    """Return the seconds that all layers of this process have taken since its start, by phase, in the order of a layer.

    Where a text is computed by several threads, the time is that of the thread which waits for them.
    """
    name, seconds = _library().encort_kernels_phase_name, _library().encort_kernels_phase_seconds
    name.restype, seconds.restype = ctypes.c_char_p, ctypes.c_double
    names = itertools.takewhile(bool, map(name, itertools.count()))
    return {phase.decode(): seconds(index) for index, phase in enumerate(names)}


@functools.cache
def _library() -> ctypes.CDLL:
    _check_hash()
    return ctypes.CDLL(str(LIBRARY))


def _check_hash() -> None:
    """Compare the library with the hash that pip recorded: a process that loads half a library ends."""
    try:
        files = importlib.metadata.files("encort-kernels") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    recorded = [file.hash for file in files if file.hash is not None and file.locate() == LIBRARY]
    for expected in recorded:
        digest = hashlib.new(expected.mode, LIBRARY.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected.value:
            raise OSError(f"{LIBRARY} has another content than when it was installed")
