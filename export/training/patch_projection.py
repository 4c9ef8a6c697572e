"""Learn the projection of patches: PCA whitening of the trunk's middle features, then a rotation.

The signs of whitened values are balanced and independent; rotated, each depends on all directions, or half the bits
would be of the least varying ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.ensemble.inference.contracts import PATCH_BITS, Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.models.backbone import LOCAL_SCALES, resized
from landseer.export.models.patches import strongest_patches
from landseer.export.models.pooling import Projection, l2n, random_rows
from landseer.export.models.trunk import Trunk

PHOTOGRAPHS, EACH = 250, 1000
"""Photographs that it is learned from, and patches of each."""
ROTATION_SEED = 4


def learned_patches(
    trunk: Trunk, files: Sequence[Path], *, seed: int, report: Callable[[int], None] = lambda done: None
) -> tuple[Projection, str]:
    """Return the projection and its text for the card. report: called with the number of photographs done.

    OSError and InvalidInput for a file that is no readable picture.
    """
    drawn = np.random.default_rng(seed).permutation(len(files))[:PHOTOGRAPHS]
    profile = Profile(backbone="none", weights_sha256="", sizes=Sizes(channels=trunk.channels))
    count, total = 0, np.zeros(trunk.middle_channels)
    products = np.zeros((trunk.middle_channels, trunk.middle_channels))
    for done, row in enumerate(drawn.tolist(), 1):
        pixels = prepare(files[row].read_bytes(), profile=profile).pixels
        found = _strongest(trunk, torch.from_numpy(pixels.copy())).double().numpy()
        count, total, products = count + len(found), total + found.sum(axis=0), products + found.T @ found
        report(done)
    mean = total / count
    matrix = _rotated_whitening(products / count - np.outer(mean, mean))
    told = f"whitening PCA and rotation of {count:,} features of {len(drawn):,} photographs, seed {seed}"
    return Projection(torch.from_numpy(mean).float(), matrix), told


@torch.inference_mode()
def _strongest(trunk: Trunk, pixels: Tensor) -> Tensor:
    """Return the strongest unit features of a picture [H, W, 3]: [n, C]."""
    picture = pixels[None].permute(0, 3, 1, 2).float()
    maps = [trunk.maps(resized(picture, scale)) for scale in LOCAL_SCALES]
    found = strongest_patches([one.middle for one in maps], [one.last for one in maps], EACH)
    return l2n(found.features)[found.valid > 0]


def _rotated_whitening(covariance: NDArray[np.float64]) -> Tensor:
    """Return [PATCH_BITS, C]."""
    variances, directions = np.linalg.eigh(covariance)
    kept = np.argsort(-variances)[: min(PATCH_BITS, len(variances))]
    whitening = (directions[:, kept] / np.sqrt(np.maximum(variances[kept], 1e-12))).T
    rotation = random_rows(len(kept), PATCH_BITS, seed=ROTATION_SEED).double().T
    return (rotation @ torch.from_numpy(whitening)).float()
