import numpy as np
import pytest
import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.cluster import Clustering
from landseer.export.models.pooling import Projection

SIZES = Sizes(channels=16, reduced=8, locals=60, clusters=5)


def clustering() -> Clustering:
    return Clustering(sizes=SIZES, reduction=Projection.untrained(16, 8, seed=1))


def padded(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = np.zeros((1, SIZES.locals, SIZES.channels), np.float32)
    x[0, : len(features)] = features
    count = torch.tensor([[len(features)]], dtype=torch.int32)
    return torch.from_numpy(x), count, torch.from_numpy(np.linalg.norm(x, axis=-1))


def slow_k_means(features: np.ndarray, k: int, rounds: int = 10) -> np.ndarray:
    """Farthest-first and Lloyd as one writes them by hand, one picture at a time, in double precision."""
    x = features.astype(np.float64)
    chosen = [int(np.argmax(np.linalg.norm(x, axis=1)))]
    while len(chosen) < k:
        nearest = np.min([((x - x[i]) ** 2).sum(1) for i in chosen], axis=0)
        chosen.append(int(np.argmax(nearest)))
    centres = x[chosen].copy()
    for _ in range(rounds):
        distances = ((x[:, None] - centres[None]) ** 2).sum(-1)
        owner = distances.argmin(1)
        for j in range(k):
            centres[j] = x[owner == j].mean(0) if (owner == j).any() else x[distances.min(1).argmax()]
    return ((x[:, None] - centres[None]) ** 2).sum(-1).argmin(1)


@pytest.mark.parametrize("seed", range(5))
def test_assignments_equal_a_slow_k_means(seed: int) -> None:
    features = np.random.default_rng(seed).random((50, 16), dtype=np.float32) ** 2
    got = clustering()(*padded(features))
    owner = slow_k_means(features, SIZES.clusters)
    assert got.assignments[0, :50].tolist() == owner.tolist()
    assert (got.assignments[0, 50:] == -1).all()
    for j in range(SIZES.clusters):
        pooled = (np.maximum(features[owner == j], 1e-6) ** 3).mean(0) ** (1 / 3)
        expected = pooled @ clustering().reduction.matrix.numpy().T
        np.testing.assert_allclose(got.clusters[0, j].float(), expected / np.linalg.norm(expected), atol=2e-3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_features_than_clusters(count: int) -> None:
    features = np.random.default_rng(9).random((count, 16), dtype=np.float32)
    got = clustering()(*padded(features))
    assert got.cluster_count.item() == count
    norms = np.linalg.norm(got.clusters[0].float().numpy(), axis=1)
    np.testing.assert_allclose(norms, [1.0] * count + [0.0] * (SIZES.clusters - count), atol=1e-3)
    assert sorted(got.assignments[0, :count].tolist()) == list(range(count))


def test_a_flat_picture_has_one_cluster() -> None:
    got = clustering()(*padded(np.full((40, 16), 0.37, np.float32)))
    assert got.cluster_count.item() == 1
    assert got.assignments[0, :40].tolist() == [0] * 40


def test_batched_equals_one_at_a_time() -> None:
    rng = np.random.default_rng(3)
    singles = [padded(rng.random((n, 16), dtype=np.float32)) for n in (60, 20, 4)]
    batch = clustering()(*(torch.cat(parts) for parts in zip(*singles, strict=True)))
    for i, single in enumerate(singles):
        for together, alone in zip(batch, clustering()(*single), strict=True):
            torch.testing.assert_close(together[i : i + 1], alone)
