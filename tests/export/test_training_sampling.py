from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.export.training.sampling import (
    SPREAD,
    batches_of_classes,
    batches_of_one_shape,
    hard_negatives,
    hard_triplets,
    queries_with_positives,
    rows_of_classes,
    same_class,
)

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.lists(st.floats(0.2, 5), min_size=1, max_size=80), st.integers(1, 9), SEEDS)
@settings(max_examples=60, deadline=None)
def test_batches_of_one_shape_have_every_row_once(aspects: list[float], size: int, seed: int) -> None:
    batches = batches_of_one_shape(aspects, size, rng(seed))
    assert Counter(row for batch in batches for row in batch) == Counter(range(len(aspects)))
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1)
    assert batches == batches_of_one_shape(aspects, size, rng(seed))


def test_batches_of_one_shape_mix_landscapes_with_portraits_at_most_once() -> None:
    draw = rng(0)
    aspects = [*draw.normal(1.5, 0.01, 50), *draw.normal(0.67, 0.01, 50)]
    batches = batches_of_one_shape(aspects, 8, draw)
    mixed = [batch for batch in batches if 0 < sum(aspects[row] > 1 for row in batch) < len(batch)]
    assert len(mixed) <= 1
    spreads = [np.ptp(np.log([aspects[row] for row in batch])) for batch in batches if batch not in mixed]
    assert max(spreads) < 3 * SPREAD
    assert batches_of_one_shape(aspects, 8, rng(1)) != batches_of_one_shape(aspects, 8, rng(2))


@given(LABELS, st.integers(1, 4), st.integers(1, 4), SEEDS)
@settings(max_examples=60, deadline=None)
def test_batches_of_classes_are_p_by_k(labels: list[int], classes: int, each: int, seed: int) -> None:
    batches = batches_of_classes(labels, classes, each, rng(seed))
    assert batches == batches_of_classes(labels, classes, each, rng(seed))
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows))
    for batch in batches:
        assert Counter(Counter(labels[row] for row in batch).values()) == {each: classes}
    able = sum(count >= each for count in Counter(labels).values())
    assert bool(batches) == (able >= classes)


@given(LABELS, st.integers(1, 80), SEEDS)
@settings(max_examples=40, deadline=None)
def test_rows_of_classes_come_with_their_class(labels: list[int], most: int, seed: int) -> None:
    rows = rows_of_classes(labels, most, rng(seed))
    assert rows == sorted(set(rows)) and len(rows) == min(most, len(labels))
    whole, taken = Counter(labels), Counter(labels[row] for row in rows)
    assert sum(taken[label] < whole[label] for label in taken) <= 1


def pool(seed: int, count: int = 50, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    draw = rng(seed)
    vectors = draw.normal(size=(count, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), draw.integers(classes, size=count)


@given(SEEDS, st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_hard_negatives_are_the_best_of_each_other_class(seed: int, count: int) -> None:
    vectors, labels = pool(seed)
    found = hard_negatives(vectors[0], int(labels[0]), vectors, labels, count)
    best = {label: (vectors @ vectors[0])[labels == label].max() for label in set(labels.tolist()) - {int(labels[0])}}
    wanted = sorted(best.values(), reverse=True)[:count]
    np.testing.assert_allclose([(vectors @ vectors[0])[place] for place in found], wanted)
    assert len({int(labels[place]) for place in found}) == len(found)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_hard_triplets_have_a_loss_and_are_among_the_hardest(seed: int) -> None:
    vectors, labels = pool(seed)
    found = hard_triplets(vectors, labels, 70, rng(seed), margin=0.1, hardest=5)
    assert found == hard_triplets(vectors, labels, 70, rng(seed), margin=0.1, hardest=5)
    apart = np.sum((vectors[:, None] - vectors) ** 2, axis=2)
    for query, positive, negative in found:
        assert query != positive and labels[query] == labels[positive] != labels[negative]
        positives = [p for p in np.flatnonzero(labels == labels[query]) if p != query]
        negatives = np.flatnonzero(labels != labels[query])
        losses = 0.1 + apart[query, positives][:, None] - apart[query, negatives]
        own = 0.1 + apart[query, positive] - apart[query, negative]
        assert own > -1e-5 and own >= np.sort(losses, axis=None)[-5:][0] - 1e-5


def test_what_is_learned_by_heart_has_no_hard_triplets() -> None:
    vectors, labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]], np.array([0, 0, 1, 1])
    assert hard_triplets(vectors, labels, 10, rng(0)) == []
    assert hard_triplets(vectors[:2], labels[:2], 10, rng(0)) == []


def test_queries_have_one_of_their_positives() -> None:
    labels = [0, 0, 0, 1, 2, 2]
    pairs = queries_with_positives(same_class(labels), 10, rng(0))
    assert {query for query, _ in pairs} == {0, 1, 2, 4, 5}
    assert all(query != positive and labels[query] == labels[positive] for query, positive in pairs)
    assert len(queries_with_positives(same_class(labels), 3, rng(0))) == 3
