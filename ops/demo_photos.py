"""The demo's pictures: real photographs from the scikit-image wheel, and transformed views of them.

Everything is seeded, and nothing was chosen by looking at results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from landseer.export.photographs import folder

Pixels = NDArray[np.uint8]

INDEXED = (
    "astronaut.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
"""The photographs that are searched for."""
CLUTTER = ("brick.png", "grass.png", "gravel.png", "text.png")
"""Backgrounds. They are not indexed; otherwise they would be right answers too."""
DISTRACTORS = 60
"""Small photographs of Labelled Faces in the Wild, faces and backgrounds, which are indexed too."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A transformed picture of an indexed photograph."""

    shows: str
    """The file name of the indexed photograph."""
    kind: str
    pixels: Pixels

    @property
    def file_name(self) -> str:
        """The name of the picture's file."""
        return f"{Path(self.shows).stem}-{self.kind}.jpg"


def indexed() -> Iterator[tuple[str, Pixels]]:
    """Yield file name and RGB pixels of all pictures that the demo indexes, distractors last."""
    for name in INDEXED:
        yield name, _load(name)
    faces = np.load(folder() / "lfw_subset.npy")
    for i in np.linspace(0, len(faces) - 1, DISTRACTORS).astype(int):
        grey = (np.clip(faces[i], 0, 1) * 255).astype(np.uint8)
        large = cv2.resize(np.stack([grey] * 3, axis=-1), (250, 250), interpolation=cv2.INTER_CUBIC)
        yield f"lfw-{i:03d}.png", np.asarray(large, np.uint8)


def views(seed: int = 0) -> Iterator[View]:
    """Yield all transformations of all photographs that are searched for."""
    rng = np.random.default_rng(seed)
    for name in INDEXED:
        pixels = _load(name)
        for kind, transform in TRANSFORMATIONS.items():
            yield View(shows=name, kind=kind, pixels=transform(pixels, rng))
    # The right picture of a real stereo pair, not a synthetic view.
    yield View(shows="motorcycle_left.png", kind="stereo", pixels=_load("motorcycle_right.png"))


def save(pixels: Pixels, path: Path) -> None:
    """Write a picture in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=92)


def _load(name: str) -> Pixels:
    with Image.open(folder() / name) as image:
        return np.array(image.convert("RGB"))


def _perspective(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Change the viewpoint: move each corner inwards by up to a fifth."""
    h, w = pixels.shape[:2]
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = corners + inward * rng.uniform(0.02, 0.2, (4, 2)).astype(np.float32) * np.array([w, h], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    warped = cv2.warpPerspective(pixels, matrix, (w, h), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(warped, np.uint8)


def _crop(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Crop to 60% of each side."""
    h, w = pixels.shape[:2]
    ch, cw = int(0.6 * h), int(0.6 * w)
    y, x = int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1))
    return pixels[y : y + ch, x : x + cw]


def _light(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Change the exposure and the colour of the light."""
    gamma = rng.choice([0.5, 1.9])
    tint = rng.uniform(0.8, 1.1, 3)
    lit = np.clip((pixels / 255.0) ** gamma * tint * 255, 0, 255)
    return np.asarray(lit, np.uint8)


def _blur(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Blur by 1% of the width."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.01 * pixels.shape[1]), np.uint8)


def _clutter(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Paste into a cluttered scene, at half its width."""
    return _paste(pixels, rng, 0.5)


def _small(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Paste into a cluttered scene, at a quarter of its width and a sixteenth of its area."""
    return _paste(pixels, rng, 0.25)


TRANSFORMATIONS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "perspective": _perspective,
    "crop": _crop,
    "light": _light,
    "blur": _blur,
    "clutter": _clutter,
    "small": _small,
}
HARD = "small"


def _paste(pixels: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    scene = _scene(rng)
    h, w = scene.shape[:2]
    width = int(share * w)
    height = min(h, round(width * pixels.shape[0] / pixels.shape[1]))
    y, x = int(rng.integers(0, h - height + 1)), int(rng.integers(0, w - width + 1))
    scene[y : y + height, x : x + width] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return scene


def _scene(rng: np.random.Generator, height: int = 480, width: int = 640) -> Pixels:
    """Compose a scene from random parts of the four clutter photographs."""
    scene = np.zeros((height, width, 3), np.uint8)
    names = rng.choice(CLUTTER, 4, replace=False)
    for name, (row, column) in zip(names, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        part = _crop(_load(str(name)), rng)
        tile = cv2.resize(part, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        scene[row * height // 2 : (row + 1) * height // 2, column * width // 2 : (column + 1) * width // 2] = tile
    return scene
