from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from landseer.export.curation.box_diffusion import around, diffuse, inverse, project
from landseer.export.curation.cleaning import largest
from landseer.export.curation.median import geometric_median
from landseer.export.curation.verification import Edge, Match


def summed(points, here):
    return np.linalg.norm(points - here, axis=1).sum()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12), size=st.integers(1, 5), grid=st.booleans())
def test_no_point_is_nearer_to_all_than_the_median(seed, count, size, grid):
    rng = np.random.default_rng(seed)
    points = rng.integers(-3, 4, (count, size)).astype(float) if grid else rng.normal(size=(count, size)) * 10
    found = geometric_median(points, tolerance=1e-9)
    slow = minimize(
        lambda here: summed(points, here), points.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9}
    )
    assert summed(points, found) <= min(slow.fun, *(summed(points, point) for point in points)) + 1e-3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.5, 4))
def test_the_median_moves_with_the_points(seed, scale):
    rng = np.random.default_rng(seed)
    points, shift = rng.normal(size=(7, 4)) * 20, rng.normal(size=4) * 100
    found = geometric_median(points, tolerance=1e-9)
    moved = geometric_median(scale * points + shift, tolerance=1e-9)
    np.testing.assert_allclose(moved, scale * found + shift, atol=1e-3)
    np.testing.assert_allclose(geometric_median(points[::-1], tolerance=1e-9), found, atol=1e-3)


def test_the_median_is_not_led_astray():
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [1e6, 1e6]])
    assert np.abs(geometric_median(points) - 0.5).max() < 1
    np.testing.assert_array_equal(geometric_median(np.array([[1.0, 2], [3, 6]])), [2, 4])
    np.testing.assert_allclose(geometric_median(np.array([[0.0], [0], [0], [9]])), [0], atol=1e-2)
    with pytest.raises(ValueError, match="needs one"):
        geometric_median(np.zeros((0, 4)))


def reachable(count, pairs):
    """Slowly: powers of the adjacency matrix."""
    near = np.eye(count, dtype=int)
    for first, second in pairs:
        near[first, second] = near[second, first] = 1
    return np.linalg.matrix_power(near, max(count, 1)) > 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2)))
    )
)
def test_the_largest_component_is_what_can_be_reached(case):
    count, pairs = case
    pairs = pairs if count else []
    found = largest(count, [edge(*pair) for pair in pairs])
    far = reachable(count, pairs)
    assert len(found) == far.sum(axis=1).max(initial=0)
    if found:
        assert np.flatnonzero(far[found[0]]).tolist() == found


def edge(first, second, transform=None, points=None, count=12):
    known = np.array([[10, 10], [50, 10], [50, 40], [10, 40]] * 3, np.float32)[:count] if points is None else points
    affine = np.array([[1.0, 0, 0], [0, 1, 0]] if transform is None else transform)
    there = (known @ affine[:, :2].T + affine[:, 2]).astype(np.float32)
    return Edge(first=first, second=second, match=Match(first=known, second=there, transform=affine))


def test_the_largest_component_stays_and_inliers_decide_between_equals():
    assert largest(6, [edge(0, 1), edge(2, 3), edge(3, 5)]) == [2, 3, 5]
    assert largest(4, [edge(0, 1, count=4), edge(2, 3)]) == [2, 3]
    assert largest(4, [edge(0, 1), edge(2, 3)]) == [0, 1]
    assert largest(2, []) == [0]
    assert largest(0, []) == []


def test_projection_is_exact_for_zoom_shift_and_quarter_turns():
    box = np.array([[10.0, 20, 30, 60]])
    for transform, expected in (
        ([[1, 0, 0], [0, 1, 0]], [10, 20, 30, 60]),
        ([[2, 0, 5], [0, 3, -7]], [25, 53, 65, 173]),
        ([[0, -1, 100], [1, 0, 0]], [40, 10, 80, 30]),
    ):
        np.testing.assert_allclose(project(box, np.array([transform], float))[0], expected)


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-3, 3), x=st.floats(-50, 50), y=st.floats(-50, 50))
def test_a_square_does_not_grow_by_going_round(angle, x, y):
    there = np.array([[[np.cos(angle), -np.sin(angle), x], [np.sin(angle), np.cos(angle), y]]])
    box = np.array([[10.0, 10, 30, 30]])
    back = project(project(box, there), inverse(there[0])[None])
    np.testing.assert_allclose(back, box, atol=1e-9)


def slow_diffusion(sizes, edges, rounds, alpha):
    """The update as the paper writes it, sign mended: each neighbour's update first, then their median."""
    count = len(sizes)
    seen = [[] for _ in range(count)]
    for one in edges:
        seen[one.first].append(around(one.match.first))
        seen[one.second].append(around(one.match.second))
    boxes = np.stack([geometric_median(np.stack(some), tolerance=1e-9) for some in seen])
    for _ in range(rounds):
        after = boxes.copy()
        for node in range(count):
            updates = []
            for one in edges:
                pairs = [(one.first, inverse(one.match.transform))] if one.first == node else []
                pairs += [(one.second, one.match.transform)] if one.second == node else []
                for _, transform in pairs:
                    other = one.second if one.first == node else one.first
                    told = project(boxes[other][None], transform[None])[0]
                    told = np.clip(told, 0, [*sizes[node], *sizes[node]])
                    updates.append((1 - alpha) * boxes[node] + alpha * told)
            after[node] = geometric_median(np.stack(updates), tolerance=1e-9)
        boxes = after
    return boxes


def random_class(seed, count=5):
    rng = np.random.default_rng(seed)
    edges = []
    for first, second in itertools.combinations(range(count), 2):
        turn = np.eye(2) * rng.uniform(0.7, 1.4) + rng.normal(size=(2, 2)) * 0.1
        points = rng.uniform(20, 180, (15, 2)).astype(np.float32)
        edges.append(edge(first, second, np.column_stack([turn, rng.normal(size=2) * 10]), points))
    return [(200, 200)] * count, edges


def test_diffusion_agrees_with_a_slow_one(monkeypatch):
    from landseer.export.curation import box_diffusion

    monkeypatch.setattr(box_diffusion, "ROUNDS", 7)
    monkeypatch.setattr(box_diffusion, "STILL", 0.001)
    for seed in range(3):
        sizes, edges = random_class(seed)
        np.testing.assert_allclose(diffuse(sizes, edges), slow_diffusion(sizes, edges, 7, 0.1), atol=0.05)


def test_diffusion_does_not_ask_for_the_order_of_pictures():
    sizes, edges = random_class(3)
    order = [3, 0, 4, 1, 2]
    turned = [Edge(first=order[one.first], second=order[one.second], match=one.match) for one in reversed(edges)]
    np.testing.assert_allclose(diffuse(sizes, turned)[order], diffuse(sizes, edges), atol=0.5)


def test_one_wrong_pair_does_not_move_the_boxes():
    """Four pictures agree on a box; a fifth's only match also covers a corner that the others do not know."""
    square = np.array([[40, 40], [100, 40], [100, 100], [40, 100]] * 3, np.float32)
    right = [edge(*pair, points=square) for pair in itertools.combinations(range(4), 2)]
    wide = np.concatenate([square, [[0, 0], [199, 199]]]).astype(np.float32)
    boxes = diffuse([(200, 200)] * 5, [*right, edge(0, 4, points=wide)])
    np.testing.assert_allclose(boxes[:4], [[40, 40, 100, 100]] * 4, atol=2)
    # The fifth starts with the wide box and is told better.
    np.testing.assert_allclose(boxes[4], [40, 40, 100, 100], atol=5)


def test_boxes_stay_in_their_pictures_and_right_side_out():
    sizes, edges = random_class(11)
    boxes = diffuse(sizes, edges)
    assert (boxes >= 0).all() and (boxes <= 200).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_a_picture_without_a_match_has_no_box():
    with pytest.raises(ValueError, match="needs one"):
        diffuse([(10, 10)] * 3, [edge(0, 1)])
