"""Converts pictures with an embedded ICC profile to sRGB, by LittleCMS.

A phone's Display P3 and a camera's Adobe RGB hold the same colours in other numbers: read as sRGB they look paler.
Profiles are untrusted input: what cannot be read, or belongs to other colours than the picture's, is left alone. So are
profiles with tables or steps of computation, as screens and printers have: 30 KB of such steps, made for the purpose,
take LittleCMS 15 s. Those of cameras and phones have a curve for each channel and a matrix.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms, features

LARGEST = 64 << 10
"""Bytes of a profile. Those of cameras and phones have hundreds, with long curves some thousands."""
ALIKE = 2
"""Levels, of 255, by which colours may differ from sRGB before they are converted; most profiles are sRGB."""

_KEPT = 32
_TAGS, _TAG = 128, 12
"""Where the list of a profile's tags begins, with their number, and the bytes of one."""
_STEPS = (0, 51, 102, 153, 204, 255)


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a picture of mode L or RGB as sRGB, mode RGB. Without a profile it costs nothing."""
    if profile and len(profile) <= LARGEST:
        transform = _transform(profile, picture.mode)
        if transform is None and picture.mode == "L":
            picture = picture.convert("RGB")  # Grey in a profile of three colours.
            transform = _transform(profile, "RGB")
        if transform is not None:
            return transform.apply(picture)
    return picture.convert("RGB")


@functools.lru_cache(maxsize=_KEPT)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of pictures of a mode; None if it would change nothing, or the profile does not fit."""
    if _computes(profile) or not features.check("littlecms2"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY", "RGB": "RGB"}[mode]:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return transform if _differs(transform, _probe(mode)) else None
    except MemoryError:
        raise
    except Exception:  # Damaged in one of many ways: as in browsers, the picture is sRGB then.
        return None


def _computes(profile: bytes) -> bool:
    """Return whether a profile has tables or steps of computation, which LittleCMS prefers to curves and a matrix."""
    count = int.from_bytes(profile[_TAGS : _TAGS + 4], "big")
    end = min(_TAGS + 4 + count * _TAG, len(profile))
    names = {profile[at : at + 3] for at in range(_TAGS + 4, end, _TAG)}
    return bool(names & {b"A2B", b"D2B"})


def _probe(mode: str) -> Image.Image:
    """Return a picture of colours from the whole range."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    colours = np.array([(red, green, blue) for red in _STEPS for green in _STEPS for blue in _STEPS], np.uint8)
    return Image.fromarray(colours[None])


def _differs(transform: ImageCms.ImageCmsTransform, probe: Image.Image) -> bool:
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(transform.apply(probe), np.int16)
    return bool(np.abs(after - before).max() > ALIKE)
