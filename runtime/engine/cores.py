"""How many cores this process may use: the affinity mask and the container's quota, not the machine's size."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least 1.

    The smaller of the affinity mask and the CPU quota of the control groups above the process, rounded up
    (half a core still needs one thread). ONNX Runtime counts the machine's cores and looks at neither.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(root))))


def _quota(root: Path) -> float:
    """Cores granted by control groups, infinite without a limit."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in memberships:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            quotas += [_quota_v2(folder) for folder in _upwards(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for folder in _upwards(root / "sys/fs/cgroup/cpu", group)]
    return min(quotas)


def _upwards(mount: Path, group: str) -> list[Path]:
    """The group's folder and all above it: any of them may hold the limit.

    Inside a container the group's own path often is not mounted, and the mount's root is the container's.
    """
    folder = mount / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _quota_v2(folder: Path) -> float:
    """Read `cpu.max`: "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    words = _words(folder / "cpu.max")
    return math.inf if not words or words[0] == "max" else int(words[0]) / int(words[1])


def _quota_v1(folder: Path) -> float:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    return math.inf if not quota or not period or int(quota[0]) < 0 else int(quota[0]) / int(period[0])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []
