"""Tells JPEGs that are decoded strip by strip from those that are kept whole in memory, by their headers.

A progressive JPEG, or one with a scan for each colour, tells every part of the picture several times, so libjpeg keeps
the coefficients of the whole picture until the end: 3 to 6 bytes a pixel, whatever size it is decoded to.
"""

from __future__ import annotations

_MOST = 10_000
"""Segments before the first scan; pictures have some tens."""
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_SCAN = 0xDA


def in_strips(data: bytes) -> bool:
    """Return whether a JPEG is sequential, with all its colours in one scan; False for damaged headers."""
    at, colours = 2, 0
    for _ in range(_MOST):
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":
            at += 1
        if at < 0 or at + 10 > len(data):
            return False
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:
            return 0 < colours == data[at + 4]
        if marker in _FRAMES:
            colours = data[at + 9] if marker in _SEQUENTIAL else 0
        at += 2 if marker in _BARE else 2 + length
    return False
