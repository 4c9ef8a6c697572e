from __future__ import annotations

import numpy as np
import pytest
from shared_files import reference

from landseer.ops.evaluate.diffusion import NeighbourGraph, diffuse


def units(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def arc(count, angle, seed=0):
    """Vectors along an arc: neighbours are alike, the ends are not."""
    angles = np.linspace(0, angle, count)
    rows = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)
    rows += np.random.default_rng(seed).normal(scale=1e-3, size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def dense(graph):
    return graph.laplacian() @ np.eye(len(graph.references))


def test_affinity_and_laplacian_equal_the_reference():
    known = reference("diffusion_graph.npz")
    graph = NeighbourGraph.joined(known["X"], known["knn_ids"], known["knn_sims"])
    np.testing.assert_allclose(graph.affinity.toarray(), known["affinity"], atol=1e-5)
    np.testing.assert_allclose(dense(graph), known["laplacian_alpha099"], atol=1e-5)


def test_the_graph_of_vectors_equals_the_reference():
    known = reference("diffusion_graph.npz")
    # The reference counts the vector itself among its 12 nearest.
    graph = NeighbourGraph.over(known["X"], neighbours=known["knn_ids"].shape[1] - 1, threads=1)
    np.testing.assert_allclose(dense(graph), known["laplacian_alpha099"], atol=1e-5)


def test_scores_solve_the_equation():
    references, queries = units(80, 8), units(3, 8, seed=1)
    graph = NeighbourGraph.over(references, neighbours=12, threads=1)
    found = diffuse(queries, graph, query_neighbours=5, iterations=1000)
    for query, scores in zip(queries, found, strict=True):
        seed = np.zeros(80)
        best = np.argsort(-(references @ query))[:5]
        seed[best] = np.clip(references[best] @ query, 0, None) ** 3
        exact = np.linalg.solve(dense(graph), seed)
        np.testing.assert_allclose(scores[exact > 1e-3], exact[exact > 1e-3], rtol=1e-3)


def test_it_follows_the_arc_where_the_cosine_does_not():
    # A stranger that lies nearer to the query than the far end of the arc does.
    chain, query = arc(60, 2.2), arc(60, 2.2)[:1]
    stranger = np.array([[0.2, -0.6, 0.77]], np.float32)
    references = np.concatenate([chain[1:], stranger / np.linalg.norm(stranger)])
    assert references[-1] @ query[0] > references[-2] @ query[0]
    [scores] = diffuse(
        query, NeighbourGraph.over(references, neighbours=4, threads=1), query_neighbours=3, iterations=200
    )
    assert (scores[:-1] > scores[-1]).all()


def test_its_own_row_takes_no_part_and_comes_last():
    references = units(40, 8)
    [scores] = diffuse(references[7:8], references, own=[7])
    assert scores.argmin() == 7 and scores[7] == -3.0
    # All are neighbours of all here, so it is as if it had never been there.
    [other] = diffuse(references[7:8], np.delete(references, 7, axis=0))
    np.testing.assert_allclose(np.delete(scores, 7), other, rtol=1e-5)


def test_what_is_not_reached_keeps_the_order_of_its_cosine():
    near, far = arc(10, 0.3), -arc(10, 0.3, seed=1)
    references = np.concatenate([far, near])
    [scores] = diffuse(
        near[:1], NeighbourGraph.over(references, neighbours=3, threads=1), query_neighbours=3, iterations=100
    )
    assert (scores[10:] > 0).all() and (scores[:10] <= 0).all()
    cosines = references[:10] @ near[0]
    np.testing.assert_array_equal(np.argsort(-scores[:10], kind="stable"), np.argsort(-cosines, kind="stable"))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_references(count):
    scores = diffuse(units(2, 4), units(count, 4, seed=1))
    assert scores.shape == (2, count) and np.isfinite(scores).all()


def test_duplicates_and_zeros_do_no_harm():
    references = np.concatenate([np.repeat(units(1, 8), 70, axis=0), np.zeros((2, 8), np.float32)])
    scores = diffuse(np.concatenate([references[:1], np.zeros((1, 8), np.float32)]), references)
    assert np.isfinite(scores).all()


def test_no_queries():
    assert diffuse(np.empty((0, 4), np.float32), units(5, 4)).shape == (0, 5)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="below 1"):
        NeighbourGraph.over(units(5, 4), alpha=1.0)
    with pytest.raises(ValueError, match="one for each"):
        diffuse(units(2, 4), units(5, 4), own=[1])


def test_a_row_whose_only_neighbour_is_left_out_is_isolated_and_no_more():
    """Cosines of different products differ in the last bits, and degrees less affinities by as much."""
    rows = units(300, 1280) + units(1, 1280, seed=1)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    graph = NeighbourGraph.over(rows, neighbours=3, threads=1)
    for own in range(300):
        assert np.isfinite(graph.laplacian(without=own) @ np.ones(300)).all()
