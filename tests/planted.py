"""Pictures in which a known thing lies at a known place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from landseer.export.datasets.photograph import Box
from landseer.export.photographs import photographs

SIZE = (420, 360)
"""Width and height of a planted picture."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    pixels: np.ndarray
    box: Box
    transform: np.ndarray
    """[2, 3]: from the thing to the picture, in pixels."""


def things() -> list[np.ndarray]:
    """Return six different textured things, 180 pixels square, from real photographs."""
    return [np.ascontiguousarray(pixels[60:240, 60:240]) for pixels in photographs(side=300)]


def texture(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a background that no other picture has."""
    noise = rng.normal(size=(size[1], size[0], 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, None, 6)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def plant(thing: np.ndarray, rng: np.random.Generator, *, turn: float = 25, zoom: tuple[float, float] = (0.8, 1.2)):
    """Lay a thing, turned, zoomed, slightly sheared, somewhere on a background of its own."""
    height, width = thing.shape[:2]
    angle, scale = np.radians(rng.uniform(-turn, turn)), rng.uniform(*zoom)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ [[1, rng.uniform(-0.1, 0.1)], [0, 1]]
    corners = linear @ np.array([[0, width, width, 0], [0, 0, height, height]])
    low, high = corners.min(axis=1), corners.max(axis=1)
    shift = rng.uniform(-low, np.array(SIZE) - high)
    transform = np.column_stack([linear, shift])
    covered = cv2.warpAffine(np.ones((height, width), np.float32), transform, SIZE)[:, :, None]
    pixels = texture(rng) * (1 - covered) + cv2.warpAffine(thing, transform, SIZE) * covered
    share = np.concatenate([(low + shift) / SIZE, (high + shift) / SIZE])
    box = Box(x0=share[0], y0=share[1], x1=share[2], y1=share[3])
    return Planted(pixels=pixels.round().astype(np.uint8), box=box, transform=transform)


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def iou(first: Box, second: Box) -> float:
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    shared = max(width, 0) * max(height, 0)
    areas = [(box.x1 - box.x0) * (box.y1 - box.y0) for box in (first, second)]
    return shared / (sum(areas) - shared)
