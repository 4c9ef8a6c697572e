"""The report of Triton's memory: what it takes at most, and whether it grows."""

from __future__ import annotations

import itertools
from argparse import Namespace

import pytest

from landseer.ops.bench.triton_memory import MIB, SIDES, Sample, report, sizes


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
    assert "**Ended early: after 4,000 of 10,000 pictures.**" in text and "\n4,000 pictures in turn" in text
    assert "each of 361 sizes once, from 640 x 640 down to 64 x 64, then 3,639 random ones" in text
    assert not found
    with pytest.raises(ValueError, match="it ended after 1000 pictures, which tell nothing"):
        report(samples[:3], Namespace(pictures=10_000, seed=0))


def test_every_size_comes_first_and_then_often_enough():
    drawn = list(itertools.islice(sizes(0), 10_000))
    every = set(itertools.product(SIDES, SIDES))
    assert drawn[0] == (640, 640) and set(drawn[:361]) == every == set(drawn[361:])
    assert drawn == list(itertools.islice(sizes(0), 10_000)) != list(itertools.islice(sizes(1), 10_000))
    pixels = [height * width for height, width in drawn[361:]]
    assert 0.40 < sum(pixels) / len(pixels) / (352 * 352) < 0.48
