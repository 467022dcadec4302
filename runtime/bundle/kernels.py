"""The operators of encort-kernels, which native variants need. The package is optional."""

import importlib.util
import logging
import os
from functools import cache
from pathlib import Path

KERNELS = "encort-kernels"
"""Requirement of native variants, in the place of an instruction set."""
CHOICE = "ENCORT_KERNELS_ISA"
"""Environment variable by which the operators choose their instruction set."""

log = logging.getLogger("encort")


def kernels_library() -> Path:
    """Return the shared library with the operators."""
    import encort_kernels

    return encort_kernels.LIBRARY


@cache
def kernels_instruction_set() -> str:
    """Return the instruction set of the operators on this processor, such as `avx512`.

    Returns:
        Its name; empty if the package is not installed, cannot be loaded, or knows no instruction set of this
        processor.
    """
    if importlib.util.find_spec("encort_kernels") is None:
        return ""
    import encort_kernels

    try:
        found = encort_kernels.instruction_set()
    except OSError as error:
        log.warning("%s cannot be loaded, so native variants are not used; install it again: %s", KERNELS, error)
        return ""
    if not found and CHOICE in os.environ:
        log.warning(
            "%s=%s is no instruction set of this processor, so native variants are not used; "
            "leave it out, or choose amx, avx512, avx_vnni or reference",
            CHOICE,
            os.environ[CHOICE],
        )
    return found


def kernels_phase_seconds() -> dict[str, float]:
    """Return the seconds that all native layers of this process have taken so far, by phase of a layer."""
    import encort_kernels

    return encort_kernels.phase_seconds()
