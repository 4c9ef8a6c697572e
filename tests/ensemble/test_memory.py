"""Memory that a process may take, in control groups of both versions."""

from __future__ import annotations

import os

import pytest

from landseer.ensemble import memory as module
from landseer.ensemble.memory import container_limit, memory_left, memory_limit


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"memory.max": "4294967296"}, 2**32),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {}, None),
        ("0::/pods/one", {"pods/one/memory.max": "max", "pods/memory.max": "8589934592"}, 2**33),
        ("0::/pods/one", {"pods/one/memory.max": "1000", "pods/memory.max": "2000"}, 1000),
        ("3:cpu:/one\n4:memory:/one", {"memory/one/memory.limit_in_bytes": "5000", "cpu/one/memory.max": "1"}, 5000),
        ("nonsense", {"memory.max": "nonsense"}, None),
    ],
)
def test_the_smallest_limit_of_a_group_and_those_above_it(tmp_path, membership, files, expected):
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content + "\n")
    (tmp_path / "membership").write_text(membership + "\n")
    assert container_limit(tmp_path / "groups", tmp_path / "membership") == expected


def test_a_machine_without_limits_or_with_one_beyond_its_memory(monkeypatch):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, expected in ((None, machine), (2**63 - 4096, machine), (2**20, 2**20)):
        monkeypatch.setattr(module, "container_limit", lambda limit=limit: limit)
        assert memory_limit() == expected


def test_what_is_left_is_the_least_of_the_machine_and_its_groups(tmp_path):
    (tmp_path / "membership").write_text("0::/pod\n")
    (tmp_path / "machine").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "pod").mkdir()
    paths = (tmp_path, tmp_path / "membership", tmp_path / "machine")
    assert memory_left(*paths) == 4000 * 1024
    for name, content in {"max": "3000000", "current": "2000000", "stat": "anon 900000\ninactive_file 500000"}.items():
        (tmp_path / "pod" / f"memory.{name}").write_text(content)
    assert memory_left(*paths) == 1_500_000
    assert memory_left(*paths[:2], tmp_path / "missing") == 1_500_000
