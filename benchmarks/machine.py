"""The machine and the versions that a measurement was made with."""

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from encort.runtime.bundle.cpu import cpu_flags, cpu_name
from encort.runtime.common.extras import installed_versions
from encort.runtime.engine.cores import available_cores

_PACKAGES = ("encort", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy", "torch", "transformers")
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Instruction sets that decide how fast matrix products are."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Hardware and versions.

    Attributes:
        cpu: Name of the processor.
        instruction_sets: Instruction sets of the processor that matter for matrix products.
        cores: Cores that this process may use.
        memory_gib: Memory of the machine.
        versions: Versions of the installed packages that matter.
        revision: Commit of encort, with `+changes` if the working tree has changes; None outside of a checkout.
        date: Time of the measurement, in UTC.
        gpu: Name of the GPU that was used; None without one.
    """

    cpu: str
    instruction_sets: list[str]
    cores: int
    memory_gib: float
    system: str
    python: str
    versions: Mapping[str, str]
    revision: str | None
    date: str
    gpu: str | None = None

    @classmethod
    def here(cls) -> "Machine":
        """Describe this machine, now."""
        flags = cpu_flags()
        return cls(
            cpu=cpu_name(),
            instruction_sets=[name for name in _INSTRUCTION_SETS if name in flags],
            cores=available_cores(),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            system=platform.platform(),
            python=platform.python_version(),
            versions=installed_versions(_PACKAGES),
            revision=_revision(),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def _revision() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # fails in another project's repository
        commit = _git(here, "rev-parse", "--short", "HEAD")
        return f"{commit}+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
