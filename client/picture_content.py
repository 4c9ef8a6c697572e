"""Tells pictures from other files by their first bytes."""

from __future__ import annotations

HEAD = 64
"""Number of bytes, from the start of a file, that tell."""

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
# Lengths of the header that follows that of a bitmap file: "BM" alone also starts texts.
_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"heif")


def format_of(head: bytes) -> str:
    """Return JPEG, PNG, GIF, TIFF, BMP, WEBP, AVIF or HEIF by the first `HEAD` bytes of a file; empty for another."""
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    return _format_of_box(head) if head[4:8] == b"ftyp" else ""


def _format_of_box(head: bytes) -> str:
    """Return the format by the brands of an ISO file: the major one, or else those that it is compatible with."""
    brands = head[8 : min(int.from_bytes(head[:4], "big"), len(head))]
    named = [brands[at : at + 4] for at in range(0, len(brands), 4)]
    if not named or named[0] not in _AVIF + _HEIF:
        return ""  # A film, such as MP4, may be compatible with pictures.
    return "AVIF" if any(brand in _AVIF for brand in named) else "HEIF"
