"""Takes texts out of a PNG that Pillow refuses to unpack, so that the picture can be read."""

from __future__ import annotations

import zlib

from PIL import PngImagePlugin

MOST_IN_ALL = 8 << 20
"""Bytes of texts and profiles that are unpacked to see how large they are; all after that are left out."""

_SIGNATURE = 8
_HEAD, _AROUND = 8, 12
"""Bytes of a chunk before its body, and around it."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def without_large_texts(png: bytes) -> bytes:
    """Return a PNG without texts and colour profiles above Pillow's limit, 1 MiB each when unpacked.

    Smaller ones stay, as one may hold the orientation. Unpacking is bounded by `MOST_IN_ALL`.
    """
    kept, left, at = [png[:_SIGNATURE]], MOST_IN_ALL, _SIGNATURE
    while at + _AROUND <= len(png):
        end = at + _AROUND + int.from_bytes(png[at : at + 4], "big")
        name = png[at + 4 : at + _HEAD]
        if name in _TEXTS:
            size = _unpacked(name, png[at + _HEAD : end - 4]) if left > 0 else 0
            fits = size <= min(PngImagePlugin.MAX_TEXT_CHUNK, left) and left > 0
            left -= size
        else:
            fits = True
        if fits:
            kept.append(png[at:end])
        at = end
    return b"".join([*kept, png[at:]])


def _unpacked(name: bytes, body: bytes) -> int:
    """Return the bytes of a text or profile when unpacked; more than Pillow's limit stands for any such number."""
    if name == b"tEXt":
        return len(body)
    rest = body.partition(b"\0")[2]
    if name == b"iTXt":
        packed = rest[:1] != b"\0"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        if not packed:
            return len(rest)
    else:
        rest = rest[1:]
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(rest, PngImagePlugin.MAX_TEXT_CHUNK))
    except zlib.error:
        return 0  # Pillow leaves it out.
    return PngImagePlugin.MAX_TEXT_CHUNK + 1 if unpacker.unconsumed_tail else size
