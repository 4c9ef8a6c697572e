"""Co-attention's reduction, learned from views in which each photograph's thing stands before others."""

import numpy as np
import pytest
import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.coattention import CoAttention
from landseer.export.models.pooling import Projection
from landseer.export.training.attending import Pooled, attended, learned_reduction, pooled
from landseer.export.training.localisation import projection
from landseer.export.training.whitening import pca_whitening

CHANNELS, PHOTOGRAPHS, EACH = 40, 60, 2
SIZES = Sizes(channels=CHANNELS, reduced=8, clusters=10)


def maps() -> torch.Tensor:
    """What tells photographs apart is weak, and lies in a few channels; what changes between views is strong."""
    draw = np.random.default_rng(0)
    own = np.zeros((PHOTOGRAPHS, 1, CHANNELS, 1, 1))
    own[:, :, :6] = draw.random((PHOTOGRAPHS, 1, 6, 1, 1))
    light = np.zeros((PHOTOGRAPHS, EACH, CHANNELS, 1, 1))
    light[:, :, 6:20] = 3 * draw.random((PHOTOGRAPHS, EACH, 14, 1, 1))
    noise = 0.2 * draw.random((PHOTOGRAPHS, EACH, CHANNELS, 5, 5))
    return torch.from_numpy(5 + own + light + noise).float().flatten(0, 1)


def first_right(views: Pooled, reduction: Projection) -> float:
    """How often the first hit of a view, by co-attention, is the other view of its photograph."""
    clusters = reduction(views.clusters.float())[None].expand(len(views.queries), -1, -1, -1)
    counts = views.counts.T.expand(len(views.queries), -1)
    scores = CoAttention(sizes=SIZES)(reduction(views.queries), clusters, counts)[0].clone()
    scores.fill_diagonal_(-2.0)
    owner = torch.arange(len(scores)) // EACH
    return float((owner[scores.argmax(dim=1)] == owner).float().mean())


def test_views_are_pooled_from_their_strongest_features_and_not_normalised() -> None:
    views = pooled(maps().split(16), CHANNELS)
    assert views.queries.shape == (PHOTOGRAPHS * EACH, CHANNELS)
    assert views.clusters.shape == (PHOTOGRAPHS * EACH, 10, CHANNELS) and views.clusters.dtype == torch.float16
    assert views.queries.norm(dim=1).min() > 5 and views.clusters[:, 0].float().norm(dim=1).min() > 5
    one = maps()[:1].flatten(2).transpose(1, 2)
    strong = one[0][one[0].norm(dim=1).topk(12).indices]  # half of 25 cells, rounded to even
    torch.testing.assert_close(views.queries[0], strong.pow(3).mean(dim=0).pow(1 / 3))


def test_it_finds_views_that_pca_does_not_and_repeats() -> None:
    views = pooled(maps().split(16), CHANNELS)
    learned = learned_reduction(views, EACH, sizes=SIZES, shrinkage=0.01)
    assert learned.matrix.shape == (8, CHANNELS) and learned.mean.shape == (CHANNELS,)
    of = views.clusters[torch.arange(10) < views.counts].float().numpy()
    by_pca = projection(pca_whitening(of, dims=8, power=0.5))
    assert first_right(views, learned) > 0.9 > first_right(views, by_pca)
    again = learned_reduction(pooled(maps().split(16), CHANNELS), EACH, sizes=SIZES, shrinkage=0.01)
    torch.testing.assert_close(again.matrix, learned.matrix, rtol=0, atol=0)


def test_what_is_attended_to_is_the_clusters_that_are_there_by_their_weights() -> None:
    draw = torch.Generator().manual_seed(0)
    clusters = torch.rand(2, 10, CHANNELS, generator=draw).half()
    clusters[1, 3:] = 0
    views = Pooled(
        queries=torch.rand(2, CHANNELS, generator=draw), clusters=clusters, counts=torch.tensor([[10], [3]]).int()
    )
    reduction = Projection.untrained(CHANNELS, 8, seed=0)
    found = attended(views, reduction, np.array([0]), np.array([1]), sizes=SIZES)
    real = clusters[1, :3].float()
    weights = (10 * reduction(real) @ reduction(views.queries[0])).softmax(dim=0)
    torch.testing.assert_close(found[0], weights @ real, rtol=1e-3, atol=1e-3)


def test_one_view_makes_no_pairs() -> None:
    views = pooled([maps()], CHANNELS)
    with pytest.raises(ValueError, match="got 1 view of each photograph; expected at least 2"):
        learned_reduction(views, 1, sizes=SIZES, shrinkage=0.01)
