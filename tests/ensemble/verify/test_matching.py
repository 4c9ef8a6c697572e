"""Matches by words and bits, against comparing every pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.keypoints.compact import BITS, CompactKeypoints
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.verify.matching import FARTHEST, Matches, matches_of, one_each

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
    told = list(zip(found.query.tolist(), found.candidate.tolist(), found.distances.tolist(), strict=True))
    assert len(told) == len(found) == len(set(told)) and set(told) == expected
    assert found.candidate.tolist() == sorted(found.candidate.tolist())


def test_more_bits_than_the_threshold_do_not_match():
    codes = np.zeros((1, BITS), np.uint8)
    candidate = compact(np.array([5]), np.packbits(codes, axis=1))
    for differing, matching in ((FARTHEST, 1), (FARTHEST + 1, 0)):
        codes[:] = 0
        codes[0, :differing] = 1
        query = QueryKeypoints.of_indexed(compact(np.array([5]), np.packbits(codes, axis=1)))
        assert len(matches_of(query, candidate)) == matching


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), most=st.integers(1, 12), seed=SEEDS)
def test_of_the_matches_of_a_keypoint_the_cheapest_stays(count, most, seed):
    draws = np.random.default_rng(seed)
    pairs, costs = draws.integers(0, most, (count, 2)), draws.permutation(count) + 0.5
    found = one_each(Matches(query=pairs[:, 0], candidate=pairs[:, 1], distances=np.zeros(count, np.int64)), costs)
    assert found.tolist() == sorted(found.tolist())
    best = {}
    for place in np.argsort(costs):
        best.setdefault(pairs[place, 0], place)
    taken = {}
    for place in sorted(best.values(), key=lambda place: costs[place]):
        taken.setdefault(pairs[place, 1], place)
    assert found.tolist() == sorted(taken.values())


def test_some_matches_are_taken_in_the_order_asked_for():
    three = Matches(query=np.array([1, 2, 3]), candidate=np.array([4, 5, 6]), distances=np.array([7, 8, 9]))
    assert three.take(np.array([2, 0])).distances.tolist() == [9, 7]
    assert three.take(np.array([False, True, False])).query.tolist() == [2]
    assert len(three.take(np.empty(0, np.int64))) == 0
