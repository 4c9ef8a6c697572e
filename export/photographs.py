"""Real photographs for checks: those in the scikit-image wheel."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")


def folder() -> Path:
    """Return scikit-image's folder of pictures, without importing it."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise RuntimeError("the checks need real photographs: pip install scikit-image")
    return Path(spec.origin).parent / "data"


def photographs(*, side: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield photographs as uint8 RGB [H, W, 3]; with `side`, resized to squares of that many pixels."""
    for name in NAMES:
        with Image.open(folder() / name) as image:
            picture = image.convert("RGB")
        yield np.array(picture.resize((side, side), Image.Resampling.BICUBIC) if side else picture)
