"""Draws heat maps as small PNGs, one pixel per cell, for a browser to stretch over a photograph."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from landseer.v1.common_pb2 import Heatmap

RAMP: tuple[tuple[int, int, int, int], ...] = (
    (59, 15, 112, 0),
    (111, 26, 118, 70),
    (183, 43, 105, 140),
    (238, 92, 58, 185),
    (253, 174, 50, 210),
    (252, 245, 160, 225),
)
"""Colours at even steps from 0 to 1: red, green, blue, opacity. Low values are transparent."""


def overlay(heatmap: Heatmap) -> bytes:
    """Return a heat map as an RGBA PNG, one pixel per cell; b"" if it has no cells.

    Colours are scaled to the map's maximum, so that weights that sum to 1 show as clearly as those that reach 1.
    Missing values and NaN count as 0.
    """
    cells = heatmap.width * heatmap.height
    if not cells:
        return b""
    values = [max(value, 0.0) if value == value else 0.0 for value in heatmap.values[:cells]]  # noqa: PLR0124
    values += [0.0] * (cells - len(values))
    top = max(values) or 1.0
    pixels = b"".join(bytes(colour(value / top)) for value in values)
    return png(pixels, width=heatmap.width, height=heatmap.height)


def colour(value: float) -> tuple[int, ...]:
    """Return red, green, blue and opacity (0 to 255) for a value in [0, 1], interpolated in `RAMP`."""
    place = min(max(value, 0.0), 1.0) * (len(RAMP) - 1)
    step = min(int(place), len(RAMP) - 2)
    return tuple(_between(low, high, place - step) for low, high in zip(RAMP[step], RAMP[step + 1], strict=True))


def png(rgba: bytes, *, width: int, height: int) -> bytes:
    """Encode RGBA pixels, row by row, as a PNG (ISO/IEC 15948): 8 bits per channel, no filter, no interlace."""
    if len(rgba) != 4 * width * height:
        raise ValueError(f"got {len(rgba)} bytes, expected 4 * {width} * {height}")
    rows = b"".join(b"\0" + rgba[at : at + 4 * width] for at in range(0, len(rgba), 4 * width))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def css_gradient(ramp: Sequence[tuple[int, int, int, int]] = RAMP) -> str:
    """Return the ramp as a CSS gradient, for the legend."""
    return f"linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b} / {a / 255:.2f})' for r, g, b, a in ramp)})"


def _between(low: int, high: int, share: float) -> int:
    return round(low + (high - low) * share)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
