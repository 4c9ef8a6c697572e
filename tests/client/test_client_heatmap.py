from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from landseer.client.heatmap import RAMP, colour, overlay, png
from landseer.v1.common_pb2 import Heatmap


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_png_is_read_back_pixel_for_pixel(data, width: int, height: int) -> None:
    pixels = data.draw(st.binary(min_size=4 * width * height, max_size=4 * width * height))
    read = Image.open(io.BytesIO(png(pixels, width=width, height=height)))
    read.load()
    assert (read.mode, read.size, read.tobytes()) == ("RGBA", (width, height), pixels)


def test_png_refuses_the_wrong_number_of_bytes() -> None:
    with pytest.raises(ValueError, match=r"got 3 bytes, expected 4 \* 1 \* 1"):
        png(b"abc", width=1, height=1)


def test_colours_run_from_clear_to_the_top_of_the_ramp() -> None:
    assert colour(0) == RAMP[0]
    assert colour(1) == colour(7) == RAMP[-1]
    opacities = [colour(step / 50)[3] for step in range(51)]
    assert opacities == sorted(opacities)


def test_overlay_spans_the_maps_own_range_row_by_row() -> None:
    image = Image.open(io.BytesIO(overlay(Heatmap(width=3, height=2, values=[0, 0, 0.1, 0, 0.05, 0]))))
    assert image.size == (3, 2)
    assert image.getpixel((2, 0)) == RAMP[-1]
    assert image.getpixel((1, 1)) == colour(0.5)
    assert image.getpixel((0, 0)) == RAMP[0]


def test_overlay_of_nothing_and_of_nonsense() -> None:
    assert overlay(Heatmap()) == b""
    flat = Image.open(io.BytesIO(overlay(Heatmap(width=2, height=2, values=[0, math.nan, -1]))))
    assert {flat.getpixel((x, y)) for x in range(2) for y in range(2)} == {RAMP[0]}
