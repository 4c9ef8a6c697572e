from __future__ import annotations

import os

import pytest

pytest.importorskip("ray")

from landseer.ops.bulk.huge_pages import HUGE_PAGES
from landseer.ops.bulk.ray_workers import _alone


@pytest.mark.parametrize("before", [None, "glibc.malloc.check=0"])
def test_processes_of_this_machine_get_huge_pages_unless_something_else_is_set(before, tmp_path, monkeypatch):
    name, value = HUGE_PAGES
    monkeypatch.setenv(name, before or "")
    if before is None:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert _alone(tmp_path, 2)["num_cpus"] == 2
    assert os.environ[name] == (before or value)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
