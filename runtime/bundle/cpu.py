"""What processor this is, and whether it multiplies bytes exactly."""

import platform
from functools import cache
from pathlib import Path

VNNI = "vnni"
"""Instruction set of 8-bit weights: dot products of bytes in 32 bits. Without it, x86 adds pairs in 16 bits, where
8-bit weights overflow and 7-bit weights do not (ONNX Runtime's documentation calls it reduce_range)."""

_CPUINFO = Path("/proc/cpuinfo")


@cache
def cpu_name() -> str:
    """The processor's model name."""
    return _field("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """What the processor says it can do, in Linux's names; nothing elsewhere."""
    return frozenset(_field("flags").split())


def has_instruction_set(name: str) -> bool:
    """Whether numbers chosen for that instruction set are safe on this machine."""
    if name != VNNI:
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True  # its products of bytes are widened before they are added
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(cpu_flags())


@cache
def _field(name: str) -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
