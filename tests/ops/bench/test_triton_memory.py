"""The report of Triton's memory: what it takes at most, and whether it grows."""

from __future__ import annotations

from argparse import Namespace

import pytest

from landseer.ops.bench.triton_memory import MIB, Sample, report


@pytest.mark.parametrize(
    ("backbone", "good"),
    [
        ([500, *[700] * 20], True),
        ([500, *[1600] * 20], False),
        ([500, *range(700, 900, 10)], False),
    ],
    ids=["flat", "too much", "growing"],
)
def test_too_much_or_growing_memory_fails(backbone, good):
    samples = [
        Sample(pictures=number * 10, by_process={"backbone": mib * MIB, "relay": 40 * MIB})
        for number, mib in enumerate(backbone)
    ]
    text, found = report(samples, Namespace(pictures=200, seed=0))
    assert found == good
    assert f"**Most: {max(backbone) + 40:,} MiB**" in text
    assert "| pictures | together | backbone | relay |" in text
    assert text.count("\n| 10 | ") == 1


def test_a_run_that_ended_early_says_so_and_is_not_good():
    samples = [Sample(pictures=number * 500, by_process={"backbone": 700 * MIB}) for number in range(9)]
    text, found = report(samples, Namespace(pictures=10_000, seed=0))
    assert "**Ended early: after 4,000 of 10,000 pictures.**" in text and "\n4,000 pictures of" in text
    assert not found
    with pytest.raises(ValueError, match="it ended after 1000 pictures, which tell nothing"):
        report(samples[:3], Namespace(pictures=10_000, seed=0))
