"""Co-attention's reduction, trained on the score itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.coattention import CoAttention
from landseer.export.models.pooling import Projection
from landseer.export.training.attending import Pooled
from landseer.export.training.coattending import Coattending, CoattendingRecipe, LearnedProjection, coattended
from landseer.export.training.errors import TrainingError
from landseer.export.training.loop import Settings, train

CHANNELS, THINGS, K = 24, 60, 10
SIZES = Sizes(channels=CHANNELS, reduced=8, clusters=K)
SETTINGS = Settings(epochs=20, learning_rate=1e-2, optimiser="adamw", device="cpu")


def pools(seed: int = 0) -> Pooled:
    """Two pictures of each thing: one cluster shows it, in a few channels; the others show what is around it."""
    draw = np.random.default_rng(seed)
    own = 2 * draw.random((THINGS, 1, 6))
    clusters = 5 * draw.random((THINGS, 2, K, CHANNELS))
    clusters[:, :, 0, :6] = own + 0.05 * draw.random((THINGS, 2, 6))
    clusters[:, :, 1:, :6] *= 0.2
    counts = np.where(draw.random((THINGS, 2)) < 0.5, K, 6)
    clusters[np.arange(K) >= counts[..., None]] = 0
    queries = clusters[:, :, 0] + 0.1 * draw.random((THINGS, 2, CHANNELS))
    return Pooled(
        queries=torch.from_numpy(queries.reshape(-1, CHANNELS)).float(),
        clusters=torch.from_numpy(clusters.reshape(-1, K, CHANNELS)).half(),
        counts=torch.from_numpy(counts.reshape(-1, 1)).int(),
    )


def task(**options: float) -> Coattending:
    return Coattending(pools(), "key", CoattendingRecipe(**{"things": 16, **options}), sizes=SIZES)  # type: ignore[arg-type]


def test_the_score_is_that_of_the_exported_module() -> None:
    some, reduction = pools(), Projection.untrained(CHANNELS, 8, seed=0)
    counts = some.counts.clone()
    counts[3] = 0
    queries, clusters = reduction(some.queries[:7]), reduction(some.clusters.float())
    clusters = clusters * (torch.arange(K) < counts)[..., None]
    expected = CoAttention(sizes=SIZES)(queries, clusters.expand(7, -1, -1, -1), counts.T.expand(7, -1)).scores
    torch.testing.assert_close(coattended(queries, clusters, counts), expected, atol=1e-5, rtol=1e-5)


def test_what_it_starts_from_is_the_learned_whitening() -> None:
    start = Projection(torch.rand(CHANNELS), 300 * torch.randn(8, CHANNELS))
    x = torch.rand(5, CHANNELS)
    torch.testing.assert_close(LearnedProjection(start)(x), start(x))


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    made = task()
    outcome = train(made, SETTINGS, tmp_path)
    assert outcome.best > outcome.start + 3 and outcome.epoch > 0
    assert outcome.weights.exists() and set(made.weights()) == {"reduction.mean", "reduction.matrix"}


def test_it_starts_from_what_finds_more() -> None:
    def started(shrinkage: float, start: Projection | None) -> Coattending:
        recipe = CoattendingRecipe(things=16, shrinkage=shrinkage)
        return Coattending(pools(), "key", recipe, sizes=SIZES, start=start)

    good = started(0.01, None)
    noise = Projection(torch.zeros(CHANNELS), torch.eye(8, CHANNELS).flip(1))
    assert good.validate() > 95 and torch.equal(started(0.01, noise).module.matrix, good.module.matrix)
    # With much shrinkage its own whitening finds nothing here, so it starts from the one that is there.
    there, poor = Projection(good.module.mean.detach(), good.module.matrix.detach()), started(0.3, None)
    assert poor.validate() < 20 and started(0.3, there).validate() == pytest.approx(good.validate())
    assert started(0.3, there).origin != poor.origin


def test_a_reduction_to_one_point_finds_nothing() -> None:
    made = task()
    with torch.no_grad():
        made.module.matrix.zero_()
    assert made.validate() < 2


def test_it_repeats_by_seed_and_another_seed_holds_out_others(tmp_path: Path) -> None:
    ends = []
    for name in ("a", "b"):
        made = task()
        train(made, Settings(epochs=2, learning_rate=1e-2, optimiser="adamw", device="cpu"), tmp_path / name)
        ends.append(made.module.matrix.detach())
    assert torch.equal(*ends)
    assert task().held.tolist() != task(seed=1).held.tolist()


def test_held_out_things_are_never_learned_from() -> None:
    made = task()
    assert len(made.held) == 12 and not set(made.held) & set(made.learning)
    used = [thing for epoch in range(3) for batch in made.plan(epoch, None) for thing in batch]
    assert set(used) <= set(made.learning.tolist()) and made.plan(0, None) == made.plan(0, None) != made.plan(1, None)


def test_the_map_is_that_of_a_slow_reference() -> None:
    made = task()
    some = made.pools
    with torch.no_grad():
        scores = coattended(made.module(some.queries), made.module(some.clusters.float()), some.counts).numpy()
        found = made.validate()
    ranks = []
    for row in (2 * made.held[:, None] + np.arange(2)).ravel():
        order = [other for other in np.argsort(-scores[row], kind="stable") if other != row]
        ranks.append(1 / (1 + order.index(row + 1 if row % 2 == 0 else row - 1)))
    assert found == pytest.approx(100 * np.mean(ranks), abs=1e-3)


def test_too_few_things_are_refused() -> None:
    few = Pooled(queries=pools().queries[:20], clusters=pools().clusters[:20], counts=pools().counts[:20])
    with pytest.raises(TrainingError, match="got 10 things, of which 2 would validate"):
        Coattending(few, "key", CoattendingRecipe(), sizes=SIZES)
