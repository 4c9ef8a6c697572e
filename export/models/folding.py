"""Turn the whitenings of a public checkpoint into projections, applied after pooling and L2."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from landseer.export.models.checkpoints import Affine, Checkpoint, Scales
from landseer.export.models.pooling import Projection
from landseer.export.models.torch_file import WeightsError

FARTHEST = 1000.0
"""Maximum norm of a folded mean, in units of the descriptor's norm; beyond it float32 loses the descriptor."""


def network_projection(checkpoint: Checkpoint) -> Projection | None:
    """Return the network's own whitening, l2n(W x + b), applied at each scale; None if it has none."""
    return None if checkpoint.whitening is None else folded(checkpoint.whitening, checkpoint.path)


def learned_projection(checkpoint: Checkpoint, which: str, *, size: int | None = None) -> Projection:
    """Return a learned whitening, DATASET:ss or DATASET:ms, or its first `size` rows. WeightsError if missing."""
    dataset, _, scales = which.rpartition(":")
    found = checkpoint.learned.get((dataset, cast(Scales, scales)))
    if found is None:
        raise WeightsError(f"{checkpoint.path} has no learned whitening {which}; it has {_names(checkpoint)}")
    if size is not None and not 1 <= size <= len(found.matrix):
        raise WeightsError(f"got size {size}; expected 1 to {len(found.matrix)}, the rows of {which}")
    return Projection(found.mean.float(), found.matrix[:size].float().contiguous())


def folded(affine: Affine, path: Path) -> Projection:
    """Return l2n(W x + b) as l2n(W (x - m)), W m = -b. WeightsError if no such m is accurate enough.

    If W = P and b = -P m were learned and then fine-tuned, m is near the descriptors' mean.
    """
    weight, bias = affine.weight.double(), affine.bias.double()
    mean = _solved(weight, -bias)
    scale = float(torch.linalg.matrix_norm(weight)) / weight.shape[1] ** 0.5 + float(bias.norm())
    gap, length = float((weight @ mean + bias).norm()), float(mean.norm())
    if not (gap <= 1e-6 * scale and length <= FARTHEST):
        raise WeightsError(
            f"{path}: its whitening W x + b does not fold into W (x - m): got m of norm {length:.3g} with an error of "
            f"{gap:.3g}; expected a norm of at most {FARTHEST:g} and no error"
        )
    return Projection(mean.float(), affine.weight.float().contiguous())


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the least-squares solution of matrix x = right with least norm; NaN if the rank is not full."""
    try:
        solution: Tensor = torch.linalg.lstsq(matrix, right[:, None], driver="gels").solution[:, 0]
    except RuntimeError:  # torch.linalg.LinAlgError, which torch does not export to type checkers
        return torch.full((matrix.shape[1],), torch.nan, dtype=matrix.dtype)
    return solution


def _names(checkpoint: Checkpoint) -> str:
    return ", ".join(f"{dataset}:{scales}" for dataset, scales in checkpoint.learned) or "none"
