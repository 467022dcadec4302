"""Cores are counted within the affinity mask and the limits of control groups, on made-up file systems."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from encort.runtime.engine.cores import available_cores

MACHINE = 64


Files = dict[str, str]


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MACHINE)), raising=False)


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def v2(group: str, **quotas: str) -> Files:
    """Return files of control groups, version 2.

    Args:
        group: Group of the process.
        quotas: Content of `cpu.max` by folder below the mount: `_` is the mount itself, `__` a slash.
    """
    folders = {"" if key == "_" else key.replace("__", "/") + "/": quota for key, quota in quotas.items()}
    return {"proc/self/cgroup": f"0::{group}\n"} | {
        f"sys/fs/cgroup/{folder}cpu.max": f"{quota}\n" for folder, quota in folders.items()
    }


def v1(memberships: str, folder: str, quota: int, period: int = 100_000) -> Files:
    """Return files of control groups, version 1."""
    return {
        "proc/self/cgroup": memberships,
        f"sys/fs/cgroup/cpu{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/cpu{folder}/cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, MACHINE, id="no control groups"),
        pytest.param({"proc/self/cgroup": ""}, MACHINE, id="no memberships"),
        pytest.param(v2("/app"), MACHINE, id="v2, nothing mounted"),
        pytest.param(v2("/app", app="200000 100000"), 2, id="v2"),
        pytest.param(v2("/app", app="100000 50000"), 2, id="v2, another period"),
        pytest.param(v2("/app", app="max 100000"), MACHINE, id="v2, no limit"),
        pytest.param(v2("/app", app="50000 100000"), 1, id="v2, half a core"),
        pytest.param(v2("/app", app="250000 100000"), 3, id="v2, two and a half cores"),
        pytest.param(v2("/app", app="9900000 100000"), MACHINE, id="v2, more than the machine"),
        pytest.param(v2("/a/b", a="200000 100000", a__b="max 100000"), 2, id="v2, the parent's limit"),
        pytest.param(v2("/a/b", a="200000 100000", a__b="400000 100000"), 2, id="v2, the parent's is smaller"),
        pytest.param(v2("/a/b", a="400000 100000", a__b="300000 100000"), 3, id="v2, the child's is smaller"),
        pytest.param(v2("/pod/x", _="300000 100000"), 3, id="v2, inside a container"),
        pytest.param(v2("/../../pod", _="300000 100000"), 3, id="v2, outside the namespace"),
        pytest.param(v2("/", _="300000 100000"), 3, id="v2, the root"),
        pytest.param(
            {"proc/self/cgroup": "0::/a:b\n", "sys/fs/cgroup/a:b/cpu.max": "200000 100000"}, 2, id="v2, a colon"
        ),
        pytest.param(v2("/app", other="100000 100000"), MACHINE, id="v2, another group's limit"),
        *(
            pytest.param(v2("/app", app=content), MACHINE, id=f"v2, {content!r}")
            for content in (
                "",
                "200000",
                "x 100000",
                "200000 0",
                "0 100000",
                "-1 100000",
                "2 3 4",
                "1e5 1e5",
                "nan 1",
                "\0",
            )
        ),
        pytest.param({"proc/self/cgroup": "nonsense\n0::\n"}, MACHINE, id="memberships that are none"),
        pytest.param(v1("4:cpu,cpuacct:/app\n", "/app", 200_000), 2, id="v1"),
        pytest.param(v1("4:cpuacct,cpu:/app\n", "/app", 50_000), 1, id="v1, half a core"),
        pytest.param(v1("4:cpu:/app\n", "/app", -1), MACHINE, id="v1, no limit"),
        pytest.param(v1("4:cpu:/a/b\n", "/a", 200_000), 2, id="v1, the parent's limit"),
        pytest.param(v1("4:cpu:/docker/x\n", "", 200_000), 2, id="v1, inside a container"),
        pytest.param(v1("4:cpuset:/app\n", "/app", 200_000), MACHINE, id="v1, another controller"),
        pytest.param(v1("4:cpu:/app\n1:name=systemd:/a:b\n0::/app\n", "/app", 200_000), 2, id="v1 and v2"),
    ],
)
def test_control_groups_limit_the_cores(tmp_path: Path, files: Files, cores: int) -> None:
    assert available_cores(write(tmp_path, files)) == cores


def test_a_smaller_affinity_mask_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cores(write(tmp_path, v2("/app", app="800000 100000"))) == 2


def test_without_an_affinity_mask_all_cores_of_the_machine_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


def test_this_machine_has_cores() -> None:
    assert 1 <= available_cores() <= MACHINE
