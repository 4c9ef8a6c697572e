from __future__ import annotations

import pytest

from landseer.ops.errors import OpsError
from landseer.ops.run.restarts import Restarts


def test_waits_longer_each_time_and_gives_up_with_the_reason():
    restarts = Restarts(name="Triton", most=4)
    assert [restarts.delay_after(1.0, "x") for _ in range(3)] == [0.5, 1.0, 2.0]
    with pytest.raises(OpsError, match=r"Triton ended 4 times in a row.*: no memory"):
        restarts.delay_after(1.0, "no memory")


def test_a_long_life_is_forgiven():
    restarts = Restarts(name="Triton", most=3)
    for _ in range(10):
        assert restarts.delay_after(3600.0, "x") == 0.5
