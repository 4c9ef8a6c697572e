"""What co-attention sees of pairs of pictures of one thing, pooled as a server does and kept on disk in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.export.models.backbone import LOCAL_SCALES, resized
from landseer.export.models.trunk import Trunk
from landseer.export.training.attending import Pooled, pooled_features
from landseer.export.training.paired_views import EACH, PairedViews
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.views import Pixels

STRONGEST = 0.43
"""Share of a picture's cells to pool, over all scales: a server pools 500 of the 1,160 of 640 x 480 pixels."""
BLOCK = 100
"""Things between two writes to disk."""


def pair_pools(
    pairs: PairedViews,
    trunk: Trunk,
    *,
    fingerprint: str,
    precision: str,
    folder: Path,
    progress: Callable[[int], None],
) -> Pooled:
    """Return what the pictures are pooled to, `EACH` of a thing in turn; blocks on disk are not computed again.

    fingerprint: of the trunk's weights. precision: "f32" or "bf16", of the trunk. progress: called with the number of
    things done since the last call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key, blocks = pools_key(pairs, fingerprint, precision), list[Pooled]()
    pool: _Pooler | None = None
    for start in range(0, len(pairs) // EACH, BLOCK):
        things = range(start, min(start + BLOCK, len(pairs) // EACH))
        file = folder / f"{key}-{start}.npz"
        if not file.exists():
            pool = pool or _Pooler(trunk, precision)
            _keep(file, [pool(pairs[EACH * thing + number]) for thing in things for number in range(EACH)])
        blocks.append(_kept(file))
        progress(len(things))
    return joined(blocks)


def joined(some: list[Pooled]) -> Pooled:
    """Join pools."""
    return Pooled(
        queries=torch.cat([one.queries for one in some]),
        clusters=torch.cat([one.clusters for one in some]),
        counts=torch.cat([one.counts for one in some]),
    )


def pools_key(pairs: PairedViews, fingerprint: str, precision: str) -> str:
    """Return a key of the pools: photographs, draws, trunk, precision."""
    digest = hashlib.sha256(f"{fingerprint} {precision} {STRONGEST} {pairs.shots.digest()}".encode())
    digest.update(f"{pairs.shots.profile.long_side} {pairs.seed} {pairs.rows.tolist()} {pairs.targets}".encode())
    return digest.hexdigest()[:24]


class _Pooler:
    """Pools a picture at all scales of a server."""

    def __init__(self, trunk: Trunk, precision: str) -> None:
        self._run, self._channels = maps_runner(trunk, precision, ["last"]), trunk.channels

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Pooled:
        image = torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2).float()
        maps = [self._map(resized(image, scale).permute(0, 2, 3, 1).numpy()) for scale in LOCAL_SCALES]
        features = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)
        return pooled_features(features, self._channels, STRONGEST)

    def _map(self, picture: NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(self._run(np.ascontiguousarray(picture))[0]).float()


def _keep(file: Path, pools: list[Pooled]) -> None:
    whole = joined(pools)
    staged = file.with_suffix(".part.npz")
    np.savez(staged, queries=whole.queries.numpy(), clusters=whole.clusters.numpy(), counts=whole.counts.numpy())
    staged.replace(file)


def _kept(file: Path) -> Pooled:
    with np.load(file) as held:
        return Pooled(**{name: torch.from_numpy(held[name]) for name in ("queries", "clusters", "counts")})
