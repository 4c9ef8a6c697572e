"""Real photographs: those that the scikit-image wheel carries and, beside a developer's checkout, groceries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shared_files import SHARED, shared

from landseer.export.photographs import NAMES, folder

WHEEL = (*NAMES, "hubble_deep_field.jpg", "ihc.png", "retina.jpg", "coins.png")
"""File names in the wheel; none but NAMES had a part in the export's own checks."""
GROCERY = tuple(range(12))
"""Places in a fixed, even choice among the test photographs of the grocery store dataset."""


def wheel(name: str) -> Path:
    """Return the path of a photograph of the wheel."""
    return folder() / name


def grocery(place: int) -> Path:
    """Return the path of a grocery photograph, or skip the test."""
    every = sorted(shared("data/grocery/test").rglob("*.jpg"))
    return every[place * len(every) // len(GROCERY)]


def groceries() -> list[Path]:
    """Return the grocery photographs, none where they are not there."""
    return [grocery(place) for place in GROCERY] if (SHARED / "data/grocery/test").exists() else []


def pixels_of(path: Path) -> NDArray[np.uint8]:
    """Return RGB pixels [H, W, 3]."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def encoded(pixels: NDArray[np.uint8] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a picture file."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def strips(count: int, *, width: int = 320, height: int = 64) -> list[bytes]:
    """Return parts of photographs, wide and low: real pictures that are described ten times as fast as whole ones.

    No two overlap by more than half. PNG.
    """
    places = []
    for name in WHEEL:
        with Image.open(wheel(name)) as image:
            across, down = image.size
        rows, columns = range(0, down - height, height // 2), range(0, across - width, width // 2)
        places += [(name, top, left) for top in rows for left in columns]
    chosen = [places[number * len(places) // count] for number in range(count)]
    pixels = {name: pixels_of(wheel(name)) for name in {name for name, _, _ in chosen}}
    return [encoded(pixels[name][top : top + height, left : left + width]) for name, top, left in chosen]
