from __future__ import annotations

import math

import pytest

from landseer.client.scores import copies_of, is_same, patches_of, sameness
from landseer.v1.search_pb2 import Hit, Verification


@pytest.mark.parametrize(
    ("probability", "shown", "same"),
    [
        (0.0, "0%", False),
        (0.031, "3%", False),
        (0.5, "50%", False),
        (0.89, "89%", False),
        (0.905, "90%", True),
        (0.914, "91%", True),
        (1.0, "99%", True),
        (math.nan, "0%", False),
        (-1.0, "0%", False),
        (math.inf, "99%", True),
    ],
)
def test_a_probability_is_a_percentage_and_never_a_certainty(probability: float, shown: str, same: bool) -> None:
    hit = Hit(verification=Verification(probability=probability))
    assert (sameness(hit), is_same(hit)) == (shown, same)


def test_a_hit_that_was_not_verified_has_none() -> None:
    assert (sameness(Hit()), is_same(Hit())) == ("", False)


def test_patches_are_counted_in_verified_hits() -> None:
    assert [patches_of(hit) for hit in (Hit(), Hit(verification=Verification(patches=61)))] == ["", "61"]
    assert patches_of(Hit(verification=Verification(inliers=9))) == "0"


def test_near_identical_pictures_are_counted_beside_the_hit_itself() -> None:
    assert [copies_of(hit) for hit in (Hit(), Hit(near_identical=["a", "b", "c"]))] == ["", "+3"]
