"""Learn the whitenings of R-MAC beside GeM of the fine map, in closed form: no gradients, and no classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.export.build import trunk_sha256
from landseer.export.datasets.photograph import Photograph
from landseer.export.models.backbone import GLOBAL_SCALES, multi_scale, resized
from landseer.export.models.beside import RMACBesideGeM, SideBySide, fine_values
from landseer.export.models.pooling import Projection, l2n
from landseer.export.models.trunk import Loaded, Trunk
from landseer.export.parts import Parts
from landseer.export.training.localisation import projection
from landseer.export.training.paired_views import PairedViews, paired_views
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.whitening import learned_whitening, pairs_within

Vectors = NDArray[np.float32]
TWO_MAP = "two-map"
"""Its key in `HEADS`."""
SHRINKAGE = 0.2
"""See `learned_whitening`. From 0.1 to 0.8 it makes little difference."""


def two_map_parts(
    loaded: Loaded,
    backbone: str,
    photographs: Sequence[Photograph],
    *,
    seed: int,
    precision: str,
    card: Mapping[str, Any],
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Parts:
    """Train the head of two maps from readable photographs.

    precision: "f32" or "bf16", of the trunk. report: called with the numbers of pictures done and of all.
    """
    pairs = paired_views(photographs, seed=seed)
    found = learned_side_by_side(loaded.trunk, pairs, precision=precision, report=lambda done: report(done, len(pairs)))
    learned_from = (
        f"learned whitening of {len(pairs):,} pictures: {len(pairs.rows):,} photographs and {pairs.targets:,}"
    )
    return Parts(
        backbone=backbone,
        trunk_sha256=trunk_sha256(loaded),
        descriptor=TWO_MAP,
        learned=("whitening",),
        tensors={f"whitening.{name}": value for name, value in found.state_dict().items()},
        card={
            **card,
            "seed": seed,
            "whitening": f"{learned_from} drawn targets, twice each, shrinkage {SHRINKAGE:g}",
        },
    )


def learned_side_by_side(
    trunk: Trunk, views: PairedViews, *, precision: str, report: Callable[[int], None]
) -> SideBySide:
    """Learn both whitenings from pairs. report: called with the number of pictures done."""
    pooled = Pooled(trunk, precision)
    rows = []
    for place in range(len(views)):
        rows.append(pooled(views[place]))
        report(place + 1)
    return side_by_side(np.stack(rows), views.things, channels=trunk.channels, seed=views.seed)


def side_by_side(vectors: Vectors, things: NDArray[np.int64], *, channels: int, seed: int) -> SideBySide:
    """Learn both whitenings from pooled vectors [N, C + F] and the thing [N] that each shows. channels: C."""
    queries, positives = pairs_within(things, most=1, seed=seed)
    fine = fine_values(channels)
    parts = np.split(vectors, [channels], axis=1)

    def whitened(part: Vectors, values: int) -> Projection:
        unit = l2n(torch.from_numpy(part)).numpy()
        return projection(learned_whitening(unit, queries, positives, dims=values, shrinkage=SHRINKAGE))

    return SideBySide(whitened(parts[0], channels - fine), whitened(parts[1], fine))


class Pooled:
    """Pools a picture as a server does, up to the whitening."""

    def __init__(self, trunk: Trunk, precision: str) -> None:
        self._run = maps_runner(trunk, precision, ["last", "fine"])
        self._head = RMACBesideGeM(trunk.channels, stride=trunk.stride).eval()

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Vectors:
        """Return the mean over scales of both parts, [C + F], for pixels [H, W, 3]."""
        image = torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2).float()
        found: Tensor = multi_scale([self._at(resized(image, scale)) for scale in GLOBAL_SCALES])[0]
        # Copied, because a view would keep some MB of torch's memory per picture.
        return np.array(found.numpy(), np.float32)

    def _at(self, picture: Tensor) -> Tensor:
        """Return the head's vectors of a picture [1, 3, h, w]."""
        maps = self._run(np.ascontiguousarray(picture.permute(0, 2, 3, 1).numpy()))
        described, _ = self._head(*(torch.from_numpy(one).float() for one in maps), *picture.shape[2:])
        return torch.as_tensor(described)
