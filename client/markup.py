"""Pieces of HTML: escaped text, lengths, and pictures as data URLs."""

from __future__ import annotations

import base64
import html

from landseer.client.readable import one_line


def escaped(text: str) -> str:
    """Escape untrusted text for element content and quoted attributes."""
    return html.escape(one_line(text), quote=True)


def percent(share: float) -> str:
    """Return a share in [0, 1] as a CSS percentage, clamped; NaN is 0%."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%" if share == share else "0%"  # noqa: PLR0124


def ratio(width: int, height: int) -> float:
    """Return width / height of a picture, held to 1/5 to 5 so that no frame is a sliver; 1 if a side is 0."""
    return min(max(width / height, 0.2), 5.0) if width and height else 1.0


def data_url(image: bytes) -> str:
    """Return an encoded picture as a data URL."""
    return f"data:{media_type(image)};base64,{base64.b64encode(image).decode('ascii')}"


def media_type(image: bytes) -> str:
    """Return an encoded picture's media type by its first bytes."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg" if image.startswith(b"\xff\xd8\xff") else "application/octet-stream"
