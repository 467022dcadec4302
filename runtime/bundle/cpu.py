"""The name of this processor, and whether it computes products of 8-bit integers exactly."""

import platform
from functools import cache
from pathlib import Path

from encort.runtime.bundle.kernels import KERNELS, kernels_instruction_set

VNNI = "vnni"
"""Instruction set for 8-bit weights: it sums products of bytes in 32 bits. Without it, x86 sums pairs in 16 bits: 8-bit
weights overflow there, and 7-bit weights do not (`reduce_range` in the documentation of ONNX Runtime)."""

_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_name() -> str:
    """Return the model name of the processor."""
    return _field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the feature flags of the processor, with the names of Linux. They are empty on other systems."""
    return frozenset(_field("flags").split())


def has_instruction_set(name: str) -> bool:
    """Return whether this machine has an instruction set that a graph needs, or the operators of encort-kernels."""
    if name == KERNELS:
        return kernels_instruction_set() != ""
    if name != VNNI:
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True  # Arm widens products of bytes before it adds them
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(cpu_flags())


@cache
def _field(name: str) -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
