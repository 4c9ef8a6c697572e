"""Cores that a process may use, in control groups of both versions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from landseer.ensemble import cores as module
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.cores import cores, cpu_quota
from landseer.ops.backend.model_settings import THREADS_VARIABLE, from_triton


@pytest.fixture
def quota(tmp_path):
    """Lays out control groups, {file: content}, and returns the quota of a process in those listed."""

    def read(membership, files):
        for name, content in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(content + "\n")
        (tmp_path / "membership").write_text(membership + "\n")
        return cpu_quota(tmp_path / "groups", tmp_path / "membership")

    return read


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        ("0::/pods/one", {"pods/one/cpu.max": "max 100000", "pods/cpu.max": "200000 100000"}, 2.0),
        ("0::/pods/one", {"pods/one/cpu.max": "50000 100000", "pods/cpu.max": "200000 100000"}, 0.5),
        # The host's path, while only the container's own group is mounted.
        ("0::/kubepods/burstable/one", {"cpu.max": "300000 100000"}, 3.0),
        (
            "3:memory:/one\n4:cpu,cpuacct:/one",
            {"cpu,cpuacct/one/cpu.cfs_quota_us": "400000", "cpu,cpuacct/one/cpu.cfs_period_us": "100000"},
            4.0,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": "nonsense"}, None),
    ],
)
def test_the_smallest_quota_of_a_group_and_those_above_it(quota, membership, files, expected):
    assert quota(membership, files) == expected


def test_a_system_without_control_groups(tmp_path):
    assert cpu_quota(tmp_path / "none", tmp_path / "nothing") is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (64.0, 8), (1.5, 2), (0.1, 1)])
def test_servers_and_models_use_no_more_threads_than_may_run(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert cores() == expected
    assert ServerConfig(store=tmp_path).threads == expected
    assert from_triton({"parameters": {}}, repository=tmp_path, version="1").threads == expected


def test_affinity_is_heeded():
    said = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    said += "from landseer.ensemble.config import ServerConfig as C; print(C(store='x').threads)"
    assert subprocess.check_output([sys.executable, "-c", said], text=True).strip() == "1"
