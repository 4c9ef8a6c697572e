import numpy as np
import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.coattention import CoAttention

SIZES = Sizes(channels=8, reduced=16, clusters=4)


def slow(query: np.ndarray, clusters: np.ndarray) -> tuple[float, np.ndarray]:
    cosines = clusters @ query
    weights = np.exp(10 * cosines) / np.exp(10 * cosines).sum()
    attended = weights @ clusters
    return float(attended @ query / np.linalg.norm(attended)), weights


def test_scores_equal_the_equations_one_candidate_at_a_time() -> None:
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, 16)).astype(np.float32)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    clusters = rng.standard_normal((2, 6, 4, 16)).astype(np.float32)
    clusters = (clusters / np.linalg.norm(clusters, axis=-1, keepdims=True)).astype(np.float16)
    counts = np.array([[4, 1, 2, 3, 4, 0], [0, 4, 4, 2, 1, 3]], np.int32)
    got = CoAttention(sizes=SIZES)(*(torch.from_numpy(x) for x in (query, clusters, counts)))
    for b in range(2):
        for c in range(6):
            n = counts[b, c]
            if n == 0:
                assert got.scores[b, c] == -1
                assert (got.cluster_weights[b, c] == 0).all()
                continue
            score, weights = slow(query[b], clusters[b, c, :n].astype(np.float32))
            np.testing.assert_allclose(got.scores[b, c], score, atol=1e-4)
            np.testing.assert_allclose(got.cluster_weights[b, c, :n], weights, atol=1e-4)
            assert (got.cluster_weights[b, c, n:] == 0).all()
