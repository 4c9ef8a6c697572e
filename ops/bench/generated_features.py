"""Keypoints and patches of generated entries, drawn from those of real pictures.

An entry shares `SHARED` of them with each other entry of its thing, and `PLACED` of these lie where they do in all of
them, so that one map, the identity, fits. The rest is drawn for it alone, from all real pictures, and agrees with
others by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ops.errors import OpsError

Features = TypeVar("Features", CompactKeypoints, Patches)
Rows = NDArray[np.int64]

SHARED, PLACED = 0.2, 0.25
"""200 matches and 50 inliers of 1,000 keypoints, 78 and 20 of 388 patches. Verified pairs of 24 real products and of 24
covers had 125 and 199 matches in the mean and 34 and 45 inliers at the median; of patches 52 and 14, and 52 and 9. To
verify 100 candidates, 31 of one thing among them, takes 23 ms of a core; of products 31, of covers 11."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeaturePool:
    """The features of real pictures, all together. Positions are shares of width and height."""

    keypoints: CompactKeypoints
    patches: Patches
    frames: Sequence[tuple[int, int]]
    """[n], of the pictures."""
    counts: NDArray[np.int64]
    """[n, 2], how many keypoints and patches each has."""

    @classmethod
    def of(cls, pictures: Sequence[tuple[CompactKeypoints, Patches]]) -> FeaturePool:
        """Pool the features of pictures. OpsError without a keypoint or a patch."""
        counts = np.array([[len(keypoints), len(patches)] for keypoints, patches in pictures]).reshape(-1, 2)
        if not counts.sum(axis=0).all():
            raise OpsError(
                f"got {len(pictures)} real pictures with keypoints and patches, {counts.sum(axis=0).tolist()} of them "
                "together; expected some of both: use pictures that have texture, and models with patches"
            )
        return cls(
            keypoints=_pooled([keypoints for keypoints, _ in pictures]),
            patches=_pooled([patches for _, patches in pictures]),
            frames=[keypoints.frame for keypoints, _ in pictures],
            counts=counts,
        )

    def drawn(self, thing: int, entry: int, *, seed: int) -> tuple[CompactKeypoints, Patches]:
        """Return the features of an entry of a thing; they have the frame and the numbers of a real picture's."""
        common, own = np.random.default_rng((seed, 0, thing)), np.random.default_rng((seed, 1, entry))
        picture = int(common.integers(len(self.frames)))
        frame, (keypoints, patches) = self.frames[picture], self.counts[picture].tolist()
        return (
            _drawn(self.keypoints, keypoints, frame, common, own),
            _drawn(self.patches, patches, frame, common, own),
        )


def _pooled(pictures: Sequence[Features]) -> Features:
    """Return the features of all pictures as those of one of width and height 1."""
    names = [field.name for field in fields(pictures[0]) if field.name not in ("frame", "positions")]
    arrays = {name: np.concatenate([getattr(one, name) for one in pictures]) for name in names}
    shares = np.concatenate([one.positions / np.array(one.frame, np.float32) for one in pictures])
    return replace(pictures[0], frame=(1, 1), positions=shares, **arrays)


def _drawn(
    pool: Features, count: int, frame: tuple[int, int], common: np.random.Generator, own: np.random.Generator
) -> Features:
    """Draw `count` features, the shared ones from `common`; in random order, as the strongest are not the shared."""
    shared = round(SHARED * count)
    rows = np.concatenate([common.integers(len(pool), size=shared), own.integers(len(pool), size=count - shared)])
    places = own.integers(len(pool), size=count)
    placed = round(PLACED * shared)
    places[:placed] = rows[:placed]
    order = own.permutation(count)
    return _at(pool, rows[order], places[order], frame)


def _at(pool: Features, rows: Rows, places: Rows, frame: tuple[int, int]) -> Features:
    """Return the features of these rows [n], at the positions of others [n]."""
    names = [field.name for field in fields(pool) if field.name not in ("frame", "positions")]
    arrays = {name: getattr(pool, name)[rows] for name in names}
    return replace(pool, frame=frame, positions=pool.positions[places] * np.array(frame, np.float32), **arrays)
