"""The regions of a picture for R-ASMK: crops at the detector's boxes. The whole picture is always region 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.ingest.regions import LEAST
from landseer.ensemble.pictures.pictures import Region
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.specs import REGIONS


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Which of a picture's boxes become regions."""

    most: int = REGIONS
    least: float = LEAST
    """Lowest score of a box."""

    def shots(self, path: Path, boxes: NDArray[np.float32]) -> list[Shot]:
        """Return the crops at boxes [m, 5] (x, y, width, height, score), in their order, best first.

        D2R widens them to whole pixels; here a crop may cover part of a pixel, like a region of a query.
        """
        chosen = [box for box in boxes.tolist() if box[4] >= self.least][: self.most]
        return [Shot(path=path, region=Region(x=x, y=y, width=w, height=h)) for x, y, w, h, _ in chosen]


def crops(paths: Sequence[Path], boxes: Iterable[NDArray[np.float32]], which: Boxes) -> dict[Path, list[Shot]]:
    """Return the crops of each picture at its boxes."""
    return {path: which.shots(path, some) for path, some in zip(paths, boxes, strict=True)}


def flat(regions: Mapping[Path, Sequence[Shot]]) -> Iterator[Shot]:
    """Yield the crops of all pictures, each once."""
    yield from dict.fromkeys(shot for shots in regions.values() for shot in shots)
