"""The number of cores that this process may use: affinity mask and container quota, not the size of the machine."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that this process may keep busy, at least 1.

    It is the smaller of the affinity mask and the CPU quota of the control groups above the process, rounded up: half
    a core still needs one thread. ONNX Runtime counts the cores of the machine and looks at neither.

    Args:
        root: Folder where `proc` and `sys` are mounted.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota(root))))


def _quota(root: Path) -> float:
    """Return the cores that control groups grant, infinite without a limit."""
    try:
        memberships = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in memberships:
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            quotas += [_quota_v2(folder) for folder in _upwards(root / "sys/fs/cgroup", group)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for folder in _upwards(root / "sys/fs/cgroup/cpu", group)]
    return min(quotas)


def _upwards(mount: Path, group: str) -> list[Path]:
    """Return the folder of a group and all folders above it: each of them may hold a limit.

    Inside a container the path of the group is often not mounted, and the root of the mount is the container's group.
    """
    folder = mount / group.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _quota_v2(folder: Path) -> float:
    """Read `cpu.max`: "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    return _cores(_read(folder / "cpu.max"))


def _quota_v1(folder: Path) -> float:
    return _cores(f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}")


def _cores(quota_and_period: str) -> float:
    """Return the cores of a quota; infinite for "max", a negative quota, and content that is no quota."""
    try:
        quota, period = map(int, quota_and_period.split())
    except ValueError:
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
