"""Matches by words and bits, and of patches, against comparing every pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.verify.matching import (
    FARTHEST,
    FARTHEST_PATCH,
    Matches,
    matches_of,
    mutual_matches,
)

SEEDS = st.integers(0, 2**32 - 1)


def near_codes(draws, *shape):
    """Return codes that differ from one another in some bits."""
    bits = np.zeros((*shape, BITS), np.uint8) ^ (draws.random((*shape, BITS)) < 0.2)
    return np.packbits(bits, axis=-1)


def compact(words, codes):
    count = len(words)
    return CompactKeypoints(
        words=words,
        codes=codes,
        positions=np.zeros((count, 2), np.float32),
        sizes=np.ones(count, np.float32),
        angles=np.zeros(count, np.float32),
        frame=(10, 10),
    )


def query_of(draws, count, multiple, words):
    """Each keypoint has distinct words."""
    chosen = np.stack([draws.permutation(words)[:multiple] for _ in range(count)]) if count else np.empty((0, multiple))
    chosen, codes = chosen.astype(np.int64), near_codes(draws, count, multiple)
    return QueryKeypoints(keypoints=compact(chosen[:, 0], codes[:, 0]), words=chosen, codes=codes)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 25), others=st.integers(0, 25), words=st.integers(3, 12), far=st.integers(20, 60), seed=SEEDS
)
def test_matches_are_those_of_comparing_every_pair(count, others, words, far, seed):
    draws = np.random.default_rng(seed)
    query = query_of(draws, count, 3, words)
    candidate = compact(draws.integers(0, words, others), near_codes(draws, others))
    found = matches_of(query, candidate, farthest=far)
    expected = set()
    for row in range(count):
        for place in range(3):
            for other in range(others):
                if query.words[row, place] == candidate.words[other]:
                    apart = int(np.unpackbits(query.codes[row, place] ^ candidate.codes[other]).sum())
                    expected |= {(row, other, apart)} if apart <= far else set()
    assert len(told(found)) == len(found) == len(set(told(found))) and set(told(found)) == expected
    assert found.candidate.tolist() == sorted(found.candidate.tolist())


def test_more_bits_than_the_threshold_do_not_match():
    codes = np.zeros((1, BITS), np.uint8)
    candidate = compact(np.array([5]), np.packbits(codes, axis=1))
    for differing, matching in ((FARTHEST, 1), (FARTHEST + 1, 0)):
        codes[:] = 0
        codes[0, :differing] = 1
        query = QueryKeypoints.of_indexed(compact(np.array([5]), np.packbits(codes, axis=1)))
        assert len(matches_of(query, candidate)) == matching


def test_some_matches_are_taken_in_the_order_asked_for():
    three = Matches(query=np.array([1, 2, 3]), candidate=np.array([4, 5, 6]), distances=np.array([7, 8, 9]))
    assert three.take(np.array([2, 0])).distances.tolist() == [9, 7]
    assert three.take(np.array([False, True, False])).query.tolist() == [2]
    assert len(three.take(np.empty(0, np.int64))) == 0


def patches(codes):
    count = len(codes)
    return Patches(
        codes=codes, positions=np.zeros((count, 2), np.float32), sizes=np.ones(count, np.float32), frame=(10, 10)
    )


def with_bits(*counts):
    """Return patches of which the first bits, so many, are set."""
    bits = np.arange(BITS) < np.array(counts)[:, None]
    return patches(np.packbits(bits, axis=1))


def told(matches):
    return list(zip(matches.query.tolist(), matches.candidate.tolist(), matches.distances.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 30), others=st.integers(0, 30), kinds=st.integers(1, 30), far=st.integers(0, 60), seed=SEEDS
)
def test_patches_match_if_each_is_the_others_nearest(count, others, kinds, far, seed):
    draws = np.random.default_rng(seed)
    # Few different codes make many ties.
    codes = near_codes(draws, kinds)
    query, candidate = (patches(codes[draws.integers(0, kinds, some)]) for some in (count, others))
    apart = [[int(np.unpackbits(one ^ other).sum()) for other in candidate.codes] for one in query.codes]
    expected = []
    for row, here in enumerate(apart):
        for other, bits in enumerate(here):
            there = [each[other] for each in apart]
            # `index` is the first, the strongest.
            if bits <= far and here.index(min(here)) == other and there.index(min(there)) == row:
                expected.append((row, other, bits))
    assert told(mutual_matches(query, candidate, farthest=far)) == expected


def test_one_patch_matches_up_to_the_threshold():
    for differing, matching in ((FARTHEST_PATCH, [(0, 0, FARTHEST_PATCH)]), (FARTHEST_PATCH + 1, [])):
        assert told(mutual_matches(with_bits(0), with_bits(differing))) == matching


def test_among_equal_patches_the_stronger_match():
    assert told(mutual_matches(with_bits(9, 9, 60), with_bits(100, 60, 9, 9))) == [(0, 2, 0), (2, 1, 0)]
    # The second is nobody's nearest: the first is as near, and stronger.
    assert told(mutual_matches(with_bits(5), with_bits(7, 3))) == [(0, 0, 2)]


def test_without_patches_nothing_matches():
    none, some = patches(np.empty((0, BITS // 8), np.uint8)), with_bits(1, 2)
    for one, other in ((none, some), (some, none), (none, none)):
        found = mutual_matches(one, other)
        assert len(found) == 0
        assert found.query.dtype == found.candidate.dtype == found.distances.dtype == np.int64
