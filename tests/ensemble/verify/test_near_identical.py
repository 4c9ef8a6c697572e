"""One photograph as several files is near-identical; another photograph of the same thing is not."""

from __future__ import annotations

import io
from itertools import permutations

import cv2
import numpy as np
import pytest
from PIL import Image
from prints import camera, cover, photographed

from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.verify.near_identical import near_identical

SIZE = (640, 480)
QUANTISER = Quantiser(shipped_codebook())


def keypoints(pixels):
    return QUANTISER.compact(extract(pixels), frame_of(pixels))


def alike(here, there):
    """Whether two pictures are near-identical, which does not depend on their order."""
    found = {
        near_identical(QueryKeypoints.of_indexed(one), other)
        for one, other in permutations((keypoints(here), keypoints(there)))
    }
    assert len(found) == 1
    return found.pop()


def as_jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(pixels, factor):
    size = tuple(round(side * factor) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


COPIES = {
    "itself": lambda pixels: pixels,
    "resized": lambda pixels: resized(pixels, 0.5),
    "wider": lambda pixels: cv2.resize(pixels, (640, 420), interpolation=cv2.INTER_AREA),
    "compressed": lambda pixels: as_jpeg(pixels, 30),
    "cropped": lambda pixels: pixels[24:-24, 32:-32],
    "off centre": lambda pixels: pixels[:450, :590],
    "brighter": lambda pixels: np.clip(pixels * 1.3, 0, 255).astype(np.uint8),
    "all of it": lambda pixels: as_jpeg(resized(pixels[15:-15, 20:-20], 0.6), 40),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_near_identical(how):
    photograph = photographed(cover(3, SIZE), camera(turn=8, tilt=0.1, zoom=0.9, size=SIZE), SIZE)
    assert alike(photograph, np.ascontiguousarray(COPIES[how](photograph)))


@pytest.mark.parametrize(
    "seen", [{"turn": 4}, {"tilt": 0.12}, {"turn": -3, "tilt": 0.08, "zoom": 0.9}, {"zoom": 0.7, "tilt": 0.15}]
)
def test_another_photograph_of_the_same_thing_is_not(seen):
    print_ = cover(3, SIZE)
    assert not alike(
        photographed(print_, camera(size=SIZE), SIZE), photographed(print_, camera(**seen, size=SIZE), SIZE)
    )


def with_middle(pixels, other):
    """Return a picture whose inner three quarters of width and height are those of another."""
    made = pixels.copy()
    made[60:420, 80:560] = other[60:420, 80:560]
    return made


def test_pictures_with_the_same_frame_around_something_else_are_not():
    framed = [with_middle(cover(1, SIZE), cover(seed, SIZE)) for seed in (2, 3)]
    assert not alike(*framed)


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: pixels[120:400, 160:560],
        lambda pixels: pixels[:, ::-1],
        np.rot90,
        lambda pixels: cover(4, SIZE),
        lambda pixels: np.full_like(pixels, 90),
    ],
    ids=["a detail", "mirrored", "turned", "another", "blank"],
)
def test_what_shows_something_else_is_not(change):
    pixels = cover(3, SIZE)
    assert not alike(pixels, np.ascontiguousarray(change(pixels)))


def test_blank_pictures_cannot_be_told_apart_so_they_are_not():
    blank = np.full((480, 640, 3), 90, np.uint8)
    assert not alike(blank, blank)
