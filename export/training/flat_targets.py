"""Drawn flat things: covers, posters and pages of print, shapes and photographs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from landseer.export.training.views import ViewRanges, view

Pixels = NDArray[np.uint8]

SIZE = (400, 300)
"""Width and height of a cover."""
LETTERS = np.array(list("ABCDEFGHKLMNPRSTUVXYZ23456789"))
WITH_PHOTOGRAPH = 0.6
"""Share of the targets that show a photograph."""
STILL = ViewRanges(crop=(1.0, 1.0), rotation=0.0, perspective=0.0, light=0.0, tint=0.0, blur=0.0)
BY_CAMERA = ViewRanges(crop=(0.85, 1.0), extent=(0.45, 1.0), blur=2.5)


def cover(seed: int, size: tuple[int, int] = SIZE) -> Pixels:
    """Return a cover of lines of print and of shapes, others for each seed."""
    draws, (width, height) = np.random.default_rng(seed), size
    pixels = np.full((height, width, 3), draws.integers(150, 230, 3), np.uint8)
    for _ in range(14):
        centre = tuple(int(value) for value in draws.integers(0, size))
        colour = tuple(int(value) for value in draws.integers(0, 256, 3))
        if draws.random() < 0.5:
            cv2.circle(pixels, centre, int(draws.integers(8, 40)), colour, int(draws.choice([-1, 3])), cv2.LINE_AA)
        else:
            corners = draws.integers(-50, 50, (3, 2)) + np.array(centre)
            cv2.fillPoly(pixels, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    for line in range(7):
        text, place = "".join(draws.choice(LETTERS, 12)), (int(draws.integers(0, 80)), 35 + 40 * line)
        font, dark = draws.uniform(0.7, 1.3), tuple(int(value) for value in draws.integers(0, 90, 3))
        cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_DUPLEX, font, dark, 2, cv2.LINE_AA)
    return pixels


def flat_target(seed: int, photograph: Pixels) -> Pixels:
    """Return a cover, upright or wide, most with a part of their area showing the photograph [H, W, 3], tinted."""
    draws = np.random.default_rng((seed, 1))
    size = SIZE if draws.random() < 0.3 else SIZE[::-1]
    pixels, (width, height) = cover(seed, size), size
    if draws.random() >= WITH_PHOTOGRAPH:
        return pixels
    w, h = (round(length * draws.uniform(0.4, 1.0)) for length in size)
    x, y = int(draws.integers(0, width - w + 1)), int(draws.integers(0, height - h + 1))
    shown = cv2.resize(photograph, (w, h), interpolation=cv2.INTER_AREA)
    if draws.random() < 0.5:
        shown = np.asarray(shown * draws.uniform(0.4, 1.0, 3), np.uint8)
    pixels[y : y + h, x : x + w] = shown
    return pixels


def pictured(target: Pixels, draw: np.random.Generator, *, side: int, background: Pixels | None = None) -> Pixels:
    """Return a picture [side, side, 3] of a target: straight on, or by a camera, before a background [h, w, 3]."""
    return view(target, draw, side=side, background=background, ranges=STILL if background is None else BY_CAMERA)
