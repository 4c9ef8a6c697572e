"""Formats numbers and untrusted text for people."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Collapse white space and replace control characters, so that server texts and file names are safe to print."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def duration(seconds: float) -> str:
    """Format a time: 0.3 ms, 62 ms, 1.2 s, 3 min 20 s, 5 h 7 min."""
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min {int(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Format a number of bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: 1 picture, 1,200 pictures."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
