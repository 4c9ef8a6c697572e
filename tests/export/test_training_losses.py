from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shared_files import reference
from torch import Tensor
from torch.nn import functional as F

from landseer.export.training.losses import LOSSES, arcface, contrastive, pair_indices, supervised_contrastive, triplet
from landseer.export.training.losses import triplet_indices as triplets

CPU = torch.device("cpu")


def tuples() -> tuple[dict[str, np.ndarray], Tensor, list[int]]:
    """Four tuples of a query, a positive and five negatives, as cnnimageretrieval-pytorch has them."""
    known = reference("losses.npz")
    x = torch.from_numpy(known["x_cols"]).T.contiguous().requires_grad_()
    assert known["labels"].reshape(4, 7).tolist() == [[-1, 1, 0, 0, 0, 0, 0]] * 4
    return known, x, [7] * 4


@pytest.mark.parametrize("margin", ["0.1", "0.7", "0.85"])
def test_contrastive_is_twice_the_sum_of_the_public_code(margin: str) -> None:
    known, x, lengths = tuples()
    loss = contrastive(margin=float(margin))(x, None, pair_indices(lengths, CPU))
    loss.backward()
    # The public code adds 1e-6 to every difference, and so do its gradients.
    assert loss.item() / 2 == pytest.approx(float(known[f"contrastive_m{margin}"]), abs=1e-5)
    np.testing.assert_allclose(x.grad.T / 2, known[f"contrastive_m{margin}_grad"], atol=1e-5)


@pytest.mark.parametrize("margin", ["0.1", "0.5"])
def test_triplet_is_half_the_mean_of_the_public_code(margin: str) -> None:
    """Its sum has no half, and it compares what is here compared."""
    known, x, lengths = tuples()
    indices = triplets(lengths, CPU)
    loss = triplet(margin=float(margin))(x, None, indices)
    loss.backward()
    scale = 2 * len(indices[0])
    assert loss.item() * scale == pytest.approx(float(known[f"triplet_m{margin}"]), abs=2e-5)
    np.testing.assert_allclose(x.grad.T * scale, known[f"triplet_m{margin}_grad"], atol=2e-5)


@pytest.mark.parametrize(("margin", "scale"), [("0.15", "30.0"), ("0.3", "32.0")])
def test_arcface_takes_its_margin_in_radians(margin: str, scale: str) -> None:
    known = reference("losses.npz")
    name = f"arc_m{margin}_s{scale}"
    weights = torch.from_numpy(known[f"{name}_W"])
    loss = arcface(classes=len(weights), channels=weights.shape[1], margin=float(margin), scale=float(scale))
    loss.W.data = weights.T.clone()
    value = loss(torch.from_numpy(known[f"{name}_feat"]), torch.from_numpy(known[f"{name}_y"]))
    assert value.item() == pytest.approx(float(known[f"{name}_ce"]), rel=1e-5)


def test_the_losses_are_those_of_their_definitions() -> None:
    x = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    lengths, lines = [4, 3], [[0, 1, 2, 3], [4, 5, 6]]
    pairs, three = [], []
    for q, p, *negatives in lines:
        pairs.append((x[q] - x[p]).norm() ** 2)
        for n in negatives:
            pairs.append(max(0.0, 0.9 - (x[q] - x[n]).norm()) ** 2)
            three.append(0.5 * max(0.0, 0.3 + (x[q] - x[p]).pow(2).sum() - (x[q] - x[n]).pow(2).sum()))
    got = contrastive(margin=0.9)(x, None, pair_indices(lengths, CPU))
    assert got.item() == pytest.approx(float(sum(pairs)), rel=1e-5)
    got = triplet(margin=0.3)(x, None, triplets(lengths, CPU))
    assert got.item() == pytest.approx(float(sum(three)) / 3, rel=1e-5)


def test_supervised_contrastive_is_infonce_for_two_views() -> None:
    x = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    cosines = x @ x.T / 0.2
    wanted = 0.0
    for row in range(6):
        others = [other for other in range(6) if other != row]
        wanted += (torch.logsumexp(cosines[row, others], 0) - cosines[row, row ^ 1]).item() / 6
    assert supervised_contrastive(temperature=0.2)(x, labels).item() == pytest.approx(wanted, rel=1e-5)


def test_every_loss_gives_equal_descriptors_finite_gradients() -> None:
    options = {"arcface": {"classes": 2, "channels": 4, "margin": 0.3}}
    for name, make in LOSSES.items():
        x = torch.ones(6, 4).div(2).requires_grad_()
        indices = {"triplet": triplets([3, 3], CPU), "contrastive": pair_indices([3, 3], CPU)}.get(name)
        loss = make(**options.get(name, {}))(x, torch.tensor([0, 1, 0, 1, 0, 1]), indices)
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(x.grad).all(), name
