"""Learn the whitenings of R-MAC beside GeM of the fine map, in closed form: no gradients, and no classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landseer.export.models.backbone import GLOBAL_SCALES, multi_scale, resized
from landseer.export.models.beside import RMACBesideGeM, SideBySide, fine_values
from landseer.export.models.pooling import Projection, l2n
from landseer.export.models.trunks import Trunk
from landseer.export.training.localisation import projection
from landseer.export.training.paired_views import PairedViews
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.whitening import learned_whitening, pairs_within

Vectors = NDArray[np.float32]


def learned_side_by_side(
    trunk: Trunk, views: PairedViews, *, precision: str, shrinkage: float, report: Callable[[int], None]
) -> SideBySide:
    """Learn both whitenings from pairs. report: called with the number of pictures done."""
    pooled = Pooled(trunk, precision)
    rows = []
    for place in range(len(views)):
        rows.append(pooled(views[place]))
        report(place + 1)
    vectors, (queries, positives) = np.stack(rows), pairs_within(views.things, most=1, seed=views.seed)
    fine = fine_values(trunk.channels)
    parts = np.split(vectors, [trunk.channels], axis=1)

    def whitened(part: Vectors, values: int) -> Projection:
        unit = l2n(torch.from_numpy(part)).numpy()
        return projection(learned_whitening(unit, queries, positives, dims=values, shrinkage=shrinkage))

    return SideBySide(whitened(parts[0], trunk.channels - fine), whitened(parts[1], fine))


class Pooled:
    """Pools a picture as a server does, up to the whitening."""

    def __init__(self, trunk: Trunk, precision: str) -> None:
        self._run = maps_runner(trunk, precision, ["last", "fine"])
        self._head = RMACBesideGeM(trunk.channels).eval()

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
