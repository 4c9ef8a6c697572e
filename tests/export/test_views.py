import numpy as np
import pytest

from landseer.export.photographs import photographs
from landseer.export.training.views import ViewRanges, view

STILL = ViewRanges(
    crop=(1.0, 1.0), extent=(0.5, 0.5), shift=0.0, rotation=0.0, perspective=0.0, light=0.0, tint=0.0, blur=0.0
)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return next(photographs())


@pytest.mark.parametrize("behind", [False, True])
def test_a_view_repeats_by_seed_and_differs_between_seeds(photograph: np.ndarray, behind: bool) -> None:
    background = photograph[:, ::-1] if behind else None
    first, again, other = (view(photograph, draw(s), side=96, background=background) for s in (1, 1, 2))
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_over_a_background_the_part_is_in_the_middle_and_the_rest_shows_what_is_behind() -> None:
    part, behind = np.full((50, 50, 3), 200, np.uint8), np.full((70, 90, 3), 20, np.uint8)
    seen = view(part, draw(), side=100, background=behind, ranges=STILL)[..., 0]
    assert seen[50, 50] == 200 and set(seen[:8].ravel()) == {20} and set(seen[-8:].ravel()) == {20}
    assert 0.12 < (seen == 200).mean() < 0.42  # half the side, its aspect by a quarter either way


def test_without_a_background_the_photograph_fills_the_frame() -> None:
    seen = view(np.full((50, 80, 3), 200, np.uint8), draw(), side=64)
    assert (seen > 60).all()


def test_a_view_that_changes_nothing_is_the_photograph() -> None:
    # No crop, no turn, no other light: what is left is the resizing, and the aspect's little jitter.
    photograph = next(photographs(side=128))
    seen = view(photograph, draw(3), side=128, ranges=STILL).astype(float)
    assert np.corrcoef(seen.ravel(), photograph.ravel())[0, 1] > 0.8
    assert np.corrcoef(seen[:, ::-1].ravel(), photograph.ravel())[0, 1] < 0.8
