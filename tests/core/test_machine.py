"""What control groups leave of a machine, in trees of files as Linux makes them."""

import os
from pathlib import Path

import psutil
import pytest

from napari_rln.core.machine import available_bytes, cores, used_bytes

GB = 10**9
V2 = "41 31 0:38 {root} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw"
V1 = "35 31 0:32 {root} /sys/fs/cgroup/{name} rw,relatime shared:9 - cgroup cgroup rw,{name}"


@pytest.fixture
def large_machine(monkeypatch):
    """Pretend to a machine of 64 cores and 500 GB."""
    memory = psutil.virtual_memory()._replace(total=500 * GB, available=400 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.fixture
def tree(tmp_path, large_machine):
    """Return a function that makes a file system of the texts of its files."""

    def made(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return made


def _v2(group, **folders):
    """Return a tree of version 2 in which this process is in a group."""
    files = {"proc/self/cgroup": f"0::{group}", "proc/self/mountinfo": V2.format(root="/")}
    for folder, limits in folders.items():
        place = f"sys/fs/cgroup/{folder.replace('__', '/')}" if folder != "top" else "sys/fs/cgroup"
        files |= {f"{place}/{name.replace('_', '.', 1)}": text for name, text in limits.items()}
    return files


def test_without_control_groups_it_is_the_machine(tree):
    root = tree({})
    assert available_bytes(root) == 400 * GB
    assert cores(root) == 64


def test_a_job_of_slurm_has_what_it_was_given(tree):
    root = tree(
        _v2(
            "/slurm/job_7/step_0",
            slurm__job_7={"memory_max": f"{8 * GB}", "memory_current": f"{3 * GB}",
                          "memory_stat": f"anon 5\ninactive_file {1 * GB}",
                          "cpu_max": "400000 100000"},
            slurm__job_7__step_0={"memory_max": "max", "memory_current": "5", "cpu_max": "max"},
        )
    )  # fmt: skip
    assert available_bytes(root) == 6 * GB  # files that were merely read make room
    assert cores(root) == 4


def test_a_container_sees_its_own_group_at_the_top(tree):
    limits = {"memory_max": f"{2 * GB}", "memory_high": f"{GB}", "memory_current": "0",
              "cpu_max": "150000 100000"}  # fmt: skip
    root = tree(_v2("/", top=limits))
    assert available_bytes(root) == GB
    assert cores(root) == 1
    root = tree(_v2("/../../elsewhere", top=limits))
    assert available_bytes(root) == GB


@pytest.mark.parametrize("seen", ["/docker/abc", "/"])
def test_version_1_with_or_without_its_own_name(tree, seen):
    place = "" if seen == "/" else "docker/abc/"
    mounts = [V1.format(root=seen if seen == "/" else "/", name=n) for n in ("memory", "cpu")]
    root = tree(
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/",
            "proc/self/mountinfo": "\n".join(mounts),
            f"sys/fs/cgroup/memory/{place}memory.limit_in_bytes": str(4 * GB),
            f"sys/fs/cgroup/memory/{place}memory.usage_in_bytes": str(2 * GB),
            f"sys/fs/cgroup/memory/{place}memory.stat": f"total_inactive_file {GB}",
            f"sys/fs/cgroup/cpu/{place}cpu.cfs_quota_us": "300000",
            f"sys/fs/cgroup/cpu/{place}cpu.cfs_period_us": "100000",
        }
    )
    assert available_bytes(root) == 3 * GB
    assert cores(root) == 3


def test_groups_without_limits_and_damaged_files_change_nothing(tree):
    root = tree(
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/\nnonsense",
            "proc/self/mountinfo": V1.format(root="/", name="memory") + "\nnonsense - \n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert available_bytes(root) == 400 * GB
    assert cores(root) == 64


def test_nothing_is_left_where_more_is_taken_than_allowed(tree):
    limits = {"memory_max": f"{GB}", "memory_current": f"{2 * GB}"}
    assert available_bytes(tree(_v2("/", top=limits))) == 0


def test_of_this_machine():
    assert 2**20 < available_bytes() <= psutil.virtual_memory().total
    assert 1 <= cores() <= psutil.cpu_count()
    assert 2**20 < used_bytes() < psutil.virtual_memory().total
