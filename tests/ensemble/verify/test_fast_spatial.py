"""Maps between keypoints: known ones are found, and those that no camera makes are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_spatial import plain_fit
from prints import apply, camera, corners_of, cover, photographed

from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints, pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.verify.evidence import log_odds
from landseer.ensemble.verify.fast_spatial import FINE, MOST_MATCHES, Fit, box_of, fit
from landseer.ensemble.verify.matching import Matches, matches_of

SIZE = (640, 480)


def similarity(turn, zoom, shift):
    map = camera(turn=turn, zoom=zoom, size=SIZE)
    map[:2, 2] += shift
    return map


def sheared(map, by, flatten=1.0):
    return map @ np.array([[1, by, 0], [0, flatten, 0], [0, 0, 1.0]])


MAPS = {
    "identity": np.eye(3),
    "similarity": similarity(25, 0.6, (40, -30)),
    "upside down": similarity(180, 1.0, (0, 0)),
    "much smaller": similarity(-70, 0.2, (20, 0)),
    "much larger": similarity(10, 4.0, (-300, 100)),
    "affine": sheared(similarity(-40, 0.9, (10, 10)), 0.3, 0.7),
    "homography": camera(turn=15, tilt=0.5, zoom=0.8, size=SIZE),
    "steep homography": camera(turn=-100, tilt=0.9, zoom=0.7, size=SIZE),
}


def keypoints(positions, sizes, angles):
    count = len(positions)
    return CompactKeypoints(
        words=np.arange(count),
        codes=np.zeros((count, BITS // 8), np.uint8),
        positions=positions.astype(np.float32),
        sizes=sizes.astype(np.float32),
        angles=(angles % (2 * np.pi)).astype(np.float32),
        frame=SIZE,
    )


def jacobians(map, points):
    step = 1e-3
    columns = [(apply(map, points + shift) - apply(map, points)) / step for shift in (np.array([step, 0]), [0, step])]
    return np.stack(columns, axis=2)


def scene(map, count, outliers, seed=0, *, noise=1.0):
    """Return keypoints of a query, those of a candidate by a map, and matches: the first `count` are true."""
    draws = np.random.default_rng(seed)
    total = count + outliers
    here = draws.uniform((20, 20), np.array(SIZE) - 20, (total, 2))
    sizes, angles = draws.uniform(4, 40, total), draws.uniform(0, 2 * np.pi, total)
    linear = jacobians(map, here)
    scales = np.sqrt(np.abs(np.linalg.det(linear)))
    ahead = np.einsum("nij,nj->ni", linear, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    there = apply(map, here) + draws.normal(0, noise, (total, 2))
    there_sizes = sizes * scales * np.exp(draws.normal(0, 0.1, total))
    there_angles = np.arctan2(ahead[:, 1], ahead[:, 0]) + draws.normal(0, 0.1, total)
    there[count:] = draws.uniform(0, SIZE, (outliers, 2))
    there_sizes[count:], there_angles[count:] = draws.uniform(4, 40, outliers), draws.uniform(0, 6.28, outliers)
    rows = draws.permutation(total)  # the order of the matches says nothing
    matches = Matches(query=rows, candidate=rows, distances=draws.integers(0, 40, total))
    return keypoints(here, sizes, angles), keypoints(there, there_sizes, there_angles), matches


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(("count", "outliers"), [(12, 0), (40, 20), (60, 120), (150, 0)])
def test_a_known_map_is_found_among_noise_and_outliers(name, count, outliers):
    map = MAPS[name]
    found = fit(*scene(map, count, outliers))
    true = np.count_nonzero(found.matches.query < count)
    assert found.most == count + outliers
    assert true >= 0.9 * count
    assert found.inliers - true <= 0.05 * outliers, "hardly an outlier agrees by chance"
    corners = box_of(scene(map, count, outliers)[0].positions[found.matches.query].astype(float))
    np.testing.assert_allclose(apply(found.map, corners), apply(map, corners), atol=FINE)


def same_as_plain(query, candidate, matches):
    """Assert that the compiled loops find what plain numpy finds; return the number of inliers."""
    found, (inliers, map) = fit(query, candidate, matches), plain_fit(query, candidate, matches)
    np.testing.assert_array_equal(found.matches.query, inliers.query)
    np.testing.assert_array_equal(found.matches.candidate, inliers.candidate)
    assert (found.map is None) == (map is None)
    if map is not None:
        np.testing.assert_allclose(found.map, map, rtol=1e-6, atol=1e-6)
    return found.inliers


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(list(MAPS)),
    count=st.integers(0, 80),
    outliers=st.integers(0, 120),
    copies=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_fit_is_that_of_plain_numpy(name, count, outliers, copies, seed):
    query, candidate, matches = scene(MAPS[name], count, outliers, seed, noise=3.0)
    # Each keypoint also matches its neighbours in the list.
    more = [np.roll(matches.candidate, turn) for turn in range(copies)]
    crowded = Matches(
        query=np.tile(matches.query, copies),
        candidate=np.concatenate(more),
        distances=np.random.default_rng(seed).integers(0, 40, copies * len(matches)),
    )
    same_as_plain(query, candidate, crowded)


def test_inliers_fit_the_map_and_no_keypoint_occurs_twice():
    query, candidate, matches = scene(MAPS["homography"], 60, 20)
    # Each keypoint also matches its neighbours in the list.
    crowded = Matches(
        query=np.concatenate([matches.query, matches.query]),
        candidate=np.concatenate([matches.candidate, np.roll(matches.candidate, 1)]),
        distances=np.concatenate([matches.distances, matches.distances]),
    )
    found = fit(query, candidate, crowded)
    for rows in (found.matches.query, found.matches.candidate):
        assert len(np.unique(rows)) == len(rows) == found.inliers
    assert found.inliers >= 54 and found.most == 80
    here, there = query.positions[found.matches.query], candidate.positions[found.matches.candidate]
    assert np.linalg.norm(apply(found.map, here.astype(float)) - there, axis=1).max() <= FINE


def test_copies_of_one_keypoint_count_once():
    """A lattice, or a letter printed many times: of many matches with one keypoint at most one is an inlier."""
    query, candidate, matches = scene(MAPS["similarity"], 12, 0)
    near = np.repeat(candidate.positions[:1], 30, axis=0) + np.random.default_rng(1).uniform(-2, 2, (30, 2))
    more = keypoints(
        np.concatenate([candidate.positions, near]),
        np.concatenate([candidate.sizes, np.repeat(candidate.sizes[:1], 30)]),
        np.concatenate([candidate.angles, np.repeat(candidate.angles[:1], 30)]),
    )
    both = Matches(
        query=np.concatenate([matches.query, np.zeros(30, np.int64)]),
        candidate=np.concatenate([matches.candidate, np.arange(12, 42)]),
        distances=np.concatenate([matches.distances, np.full(30, 5)]),
    )
    assert fit(query, more, both).inliers <= 12


@pytest.mark.parametrize(
    "map",
    [
        np.diag([-1.0, 1, 1]) + np.array([[0, 0, 640.0], [0, 0, 0], [0, 0, 0]]),
        np.diag([1.0, -1, 1]) + np.array([[0, 0, 0], [0, 0, 480.0], [0, 0, 0]]),
        sheared(np.eye(3), 0.0, 0.02),
        np.diag([8.0, 0.8, 1]),
        np.diag([0.01, 0.01, 1]),
        np.diag([40.0, 40, 1]),
    ],
    ids=["mirrored", "mirrored upside down", "collapsed to a line", "stretched", "collapsed to a point", "blown up"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_map_that_no_camera_makes_is_rejected(map, seed):
    found = fit(*scene(map, 80, 0, seed))
    assert found.inliers < 20
    if found.map is not None:
        assert np.linalg.det(found.map[:2, :2]) > 0


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fewer_than_four_matches_give_none(count):
    found = fit(*scene(np.eye(3), count, 0))
    assert (found.inliers, found.map, found.most) == (0, None, count)


def test_four_matches_are_enough():
    assert fit(*scene(np.eye(3), 4, 0, noise=0.2)).inliers == 4


@pytest.mark.parametrize(("outliers", "seeds"), [(30, 150), (100, 100), (300, 20)])
def test_random_matches_agree_by_chance_less_than_counts(outliers, seeds):
    counts = [fit(*scene(np.eye(3), 0, outliers, seed)).inliers for seed in range(seeds)]
    assert max(counts) < 8, counts


def test_of_very_many_matches_the_nearest_are_looked_at():
    query, candidate, matches = scene(MAPS["affine"], 100, 900)
    distances = np.where(matches.query < 100, 10, 40)
    found = fit(query, candidate, Matches(query=matches.query, candidate=matches.candidate, distances=distances))
    assert found.most == 1000 and 95 <= np.count_nonzero(found.matches.query < 100) <= found.inliers <= MOST_MATCHES


def test_the_same_matches_give_the_same_map():
    one, other = (fit(*scene(MAPS["homography"], 50, 50)) for _ in range(2))
    np.testing.assert_array_equal(one.map, other.map)
    np.testing.assert_array_equal(one.matches.query, other.matches.query)


def test_keypoints_in_one_place_give_none():
    here = keypoints(np.full((30, 2), 100.0), np.full(30, 8.0), np.zeros(30))
    rows = np.arange(30)
    assert fit(here, here, Matches(query=rows, candidate=rows, distances=np.zeros(30, np.int64))).map is None


# Drawn covers, as a camera sees them.


@pytest.mark.parametrize("seed", range(1, 5))
def test_of_photographs_the_fit_is_that_of_plain_numpy(quantiser, seed):
    photograph = photographed(cover(1), PHOTOGRAPHS["tilted"])
    query = quantiser.query(extract(photograph), frame_of(photograph))
    kept = unpack_keypoints(pack_keypoints(quantiser.compact(extract(cover(seed)), frame_of(cover(seed)))))
    assert same_as_plain(query.keypoints, kept, matches_of(query, kept)) > (24 if seed == 1 else -1)


@pytest.fixture(scope="module")
def quantiser():
    return Quantiser(shipped_codebook())


def verified(quantiser, query, candidate) -> Fit:
    """As the server does it: the candidate through the store's bytes."""
    asked = quantiser.query(extract(query), frame_of(query))
    kept = unpack_keypoints(pack_keypoints(quantiser.compact(extract(candidate), frame_of(candidate))))
    return fit(asked.keypoints, kept, matches_of(asked, kept))


PHOTOGRAPHS = {
    "turned": camera(turn=20, zoom=0.7),
    "on its side": camera(turn=90, zoom=0.7),
    "upside down": camera(turn=180),
    "tilted": camera(turn=-10, tilt=0.4, zoom=0.75),
    "small": camera(turn=5, zoom=0.4),
}


@pytest.mark.parametrize("how", PHOTOGRAPHS)
def test_a_photograph_of_a_cover_shows_where_the_cover_is(quantiser, how):
    map = PHOTOGRAPHS[how]
    found = verified(quantiser, cover(1), photographed(cover(1), map))
    assert found.inliers > 24
    np.testing.assert_allclose(apply(found.map, corners_of()), apply(map, corners_of()), atol=5)
    # And the other way round: where in the cover the photograph lies.
    back = verified(quantiser, photographed(cover(1), map), cover(1))
    assert back.inliers > 24
    np.testing.assert_allclose(apply(back.map, apply(map, corners_of())), corners_of(), atol=10)


def test_another_cover_does_not(quantiser):
    """Some letters are the same, so a line of print may agree in a few; it is no evidence of the same cover."""
    photograph = photographed(cover(1), PHOTOGRAPHS["tilted"])
    same = verified(quantiser, photograph, cover(1))
    assert log_odds(same.inliers, same.most) > np.log(99)
    for seed in range(2, 5):
        found = verified(quantiser, photograph, cover(seed))
        assert found.inliers < same.inliers / 5
        assert log_odds(found.inliers, found.most) < np.log(0.25)


def test_a_photograph_of_nothing_shows_nothing(quantiser):
    blank = np.full((300, 400, 3), 120, np.uint8)
    assert verified(quantiser, blank, cover(1)).most == 0
    assert verified(quantiser, cover(1), blank).most == 0
