"""JPEGs of any size, quickly: flat ones, whose coded blocks are zero bits alone."""

from __future__ import annotations

import struct

MARKERS = {"baseline": 0xC0, "progressive": 0xC2}


def flat_jpeg(width: int, height: int, *, kind: str = "baseline", exif: bytes = b"") -> bytes:
    """A colour JPEG, 4:2:0, with blocks that take two bits each."""
    table = b"".join(_segment(0xDB, bytes([number]) + bytes([1] * 64)) for number in (0, 1))
    sides = struct.pack(">BHHB", 8, height, width, 3)
    frame = _segment(MARKERS[kind], sides + bytes((1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1)))
    # One code, of one bit, for the symbol 0: no difference, and the end of the block.
    codes = b"".join(_segment(0xC4, bytes([number, 1, *([0] * 15), 0])) for number in (0x00, 0x10))
    spectrum = (0, 0, 0) if kind == "progressive" else (0, 63, 0)
    scan = _segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, *spectrum)))
    units = -(-width // 16) * -(-height // 16)
    bits = units * (6 if kind == "progressive" else 12)
    app1 = _segment(0xE1, exif) if exif else b""
    return b"\xff\xd8" + app1 + table + frame + codes + scan + bytes(-(-bits // 8)) + b"\xff\xd9"


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
