"""Bytes of a picture in, pixels for the backbone out: decoding, EXIF rotation, the region of interest, resizing.

Input is never trusted. Only JPEG, PNG, WebP, GIF, BMP and TIFF are tried; size is checked before anything is decoded;
whatever Pillow raises becomes InvalidInput; a picture that ends early is refused, never filled up with grey. (A JPEG
whose scan is cut short and then closed by a proper end marker is beyond what libjpeg reports.) All functions are pure
and may run in many threads.

How a picture is read:

- The first frame of an animation, the first page of a TIFF.
- Transparency is laid over white.
- CMYK and YCCK JPEG as Adobe writes them, inverted; then by the plain formula, without a colour profile.
- 16 and 12 bits are scaled down to 8, not clipped. 32-bit integers and floats have no agreed range: refused.
- ICC profiles are left alone: values are taken for sRGB, as training and evaluation take them too.

Resizing is bicubic with antialiasing (Pillow's, in fixed-point arithmetic, so the same bytes on every machine). Bicubic
because the trunks were trained on it or on close kin; bilinear blurs what is reduced, Lanczos rings and costs half as
much again. A JPEG that is much larger than needed is decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled inverse transform),
the smallest that is still at least as large as what is asked for: 12 megapixels (4000 x 3000, 2.2 MB) to 640 take 34 ms
on one core instead of 160, at 51.7 dB from the original instead of 52.9.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.orientation import TURNS, Box, Turn

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 80
TOLERANCE = 0.5
"""How far, in pixels, a region may stand out of the picture."""

_EXPECTED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# TIFF and EXIF tags.
_BITS, _PHOTOMETRIC, _ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 274, 322, 323


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle in pixels of the picture after EXIF rotation, origin at the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A picture, ready for the backbone."""

    pixels: npt.NDArray[np.uint8]
    """[H, W, 3] RGB, contiguous, sized by the profile's rule."""
    width: int
    """Of the whole picture after EXIF rotation, pixels."""
    height: int
    region: Region
    """What `pixels` shows; the whole picture if no region was asked for."""
    thumbnail: bytes
    """A small JPEG of the whole picture, longer side at most 256; empty if not asked for."""


def prepare(
    data: bytes,
    *,
    profile: Profile,
    limits: Limits = DEFAULT_LIMITS,
    region: Region | None = None,
    thumbnail: bool = False,
) -> Prepared:
    """Decode an encoded picture and size it, or a region of it, for the backbone.

    InvalidInput names `image` (empty, of no known format, damaged, cut short, too large) or `region` (not finite,
    smaller than a pixel, outside the picture).
    """
    _check_bytes(data, limits)
    with _blaming_the_picture():
        picture = _open(data, limits)
        turn = _turn(picture)
        width, height = turn.size(*picture.size)
        seen = _checked_region(region, width, height)
        target = turn.size(*target_size(seen.width, seen.height, profile))
        box = turn.stored((seen.x, seen.y, seen.x + seen.width, seen.y + seen.height), width, height)
        scale = _draft(picture, box, target)
        decoded = _colours(picture)
        pixels = turn.apply(_resized(decoded, target, box, scale))
        small = _thumbnail(decoded, turn, (width, height), scale) if thumbnail else b""
    return Prepared(pixels=pixels, width=width, height=height, region=seen, thumbnail=small)


def target_size(width: float, height: float, profile: Profile) -> tuple[int, int]:
    """Return width and height in pixels to which a picture, or region, of that size is brought for the backbone.

    The longer side becomes `profile.long_side`, whether that enlarges or reduces. The other keeps the aspect ratio,
    rounded to the nearest multiple of `profile.side_multiple` (halves upwards), but is no shorter than
    `profile.min_side` and no longer than `profile.max_side`. So the aspect ratio changes by at most half a multiple,
    more only where a strip would be narrower than the backbone can take.
    """
    longer, shorter, multiple = max(width, height), min(width, height), profile.side_multiple
    other = int((2 * shorter * profile.long_side + longer * multiple) // (2 * longer * multiple)) * multiple
    other = min(max(other, profile.min_side, multiple), profile.max_side)
    return (profile.long_side, other) if width >= height else (other, profile.long_side)


def _check_bytes(data: bytes, limits: Limits) -> None:
    if not data:
        raise InvalidInput("image", f"got no bytes; expected an encoded picture: {_EXPECTED}", kind="empty")
    if len(data) > limits.max_bytes:
        expected = f"expected at most {limits.max_bytes:,}. Send it smaller or compress it more"
        raise InvalidInput("image", f"got {len(data):,} bytes; {expected}", kind="bytes")


@contextmanager
def _blaming_the_picture() -> Iterator[None]:
    """Turn whatever Pillow raises for hostile bytes into InvalidInput; lack of memory is not the picture's fault."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidInput(
            "image", f"got bytes that are no picture; expected {_EXPECTED}, whole", kind="format"
        ) from error
    except Image.DecompressionBombError as error:
        raise InvalidInput("image", f"got too many pixels: {error}. Send it smaller", kind="pixels") from error
    except Exception as error:
        why = str(error) or type(error).__name__
        raise InvalidInput(
            "image", f"got a damaged or truncated picture ({why}); expected a whole one", kind="damaged"
        ) from error


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """Read a picture's header and hold it against the limits; decode it too, unless it is a JPEG.

    Only a JPEG can be decoded at a smaller size, so it waits until that size is known. The others may tell of their
    orientation after their pixels (PNG), or are turned by Pillow itself as they are decoded (TIFF).
    """
    _hush_pillow()
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_pixels(picture, limits)
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        picture.load()
    return picture


@functools.cache
def _hush_pillow() -> None:
    """Keep Pillow's remarks on damaged metadata and large pictures out of the log; we judge them ourselves."""
    warnings.filterwarnings("ignore", module=r"PIL\b")


def _check_pixels(picture: ImageFile.ImageFile, limits: Limits) -> None:
    """Hold the header against the limit; a TIFF's tiles, which are decoded whole, may be larger than the picture."""
    width, height = picture.size
    pixels = width * height
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        pixels = max(pixels, int(picture.tag_v2.get(_TILE_WIDTH, 0)) * int(picture.tag_v2.get(_TILE_LENGTH, 0)))
    if pixels > limits.max_pixels:
        got = f"got {width} x {height}, {pixels:,} pixels to decode"
        raise InvalidInput("image", f"{got}; expected at most {limits.max_pixels:,}. Send it smaller", kind="pixels")


def _turn(picture: ImageFile.ImageFile) -> Turn:
    """Return the turn that EXIF asks for; none if EXIF cannot be read, as browsers do."""
    try:
        return TURNS.get(picture.getexif().get(_ORIENTATION, 1), TURNS[1])
    except MemoryError:
        raise
    except Exception:
        return TURNS[1]


def _checked_region(region: Region | None, width: int, height: int) -> Region:
    """Return the region, cut to the picture; the whole picture for None. Half a pixel outside is forgiven."""
    if region is None:
        return Region(x=0, y=0, width=width, height=height)
    sides = (region.x, region.y, region.width, region.height)
    if not all(map(math.isfinite, sides)):
        raise InvalidInput("region", f"got x, y, width, height = {sides}; expected finite numbers", kind="region")
    if region.width < 1 or region.height < 1:
        raise InvalidInput(
            "region", f"got {region.width} x {region.height} pixels; expected at least 1 x 1", kind="region"
        )
    right, bottom = region.x + region.width, region.y + region.height
    if min(region.x, region.y) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE:
        raise InvalidInput(
            "region",
            f"got x {region.x} to {right}, y {region.y} to {bottom}; expected it inside the picture, "
            f"{width} x {height} pixels after EXIF rotation",
            kind="region",
        )
    x, y = max(region.x, 0.0), max(region.y, 0.0)
    return Region(x=x, y=y, width=min(right, width) - x, height=min(bottom, height) - y)


def _draft(picture: ImageFile.ImageFile, box: Box, target: tuple[int, int]) -> float:
    """Have a JPEG decoded smaller if `box` stays as large as `target`; return stored pixels per decoded pixel."""
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return 1.0
    width, height = picture.size
    asked = (math.ceil(width * target[0] / (box[2] - box[0])), math.ceil(height * target[1] / (box[3] - box[1])))
    drafted = picture.draft(None, asked)
    return width / drafted[1][2] if drafted else 1.0


def _colours(picture: ImageFile.ImageFile) -> Image.Image:
    """Decode, and return mode L, RGB, or RGBA where something is transparent."""
    picture.load()
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        return _eight_bits(picture)
    if picture.mode in ("I", "F"):
        kind = "floating-point" if picture.mode == "F" else "32-bit or signed"
        raise InvalidInput(
            "image", f"got {kind} values, which have no agreed range; expected 8 or 16 bits, unsigned", kind="depth"
        )
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _eight_bits(picture: ImageFile.ImageFile) -> Image.Image:
    """Scale 16-bit greyscale, or a TIFF's 12 bits, down to 8."""
    values, highest = np.asarray(picture).astype(np.uint32), 65535
    transparent = picture.info.get("transparency")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        highest = 2 ** int(picture.tag_v2.get(_BITS, (16,))[0]) - 1
        values = highest - values if picture.tag_v2.get(_PHOTOMETRIC) == 0 else values
    if isinstance(transparent, int):
        values[values == transparent] = highest
    return Image.fromarray(((values * 255 + highest // 2) // highest).astype(np.uint8))


def _resized(
    decoded: Image.Image, size: tuple[int, int], box: Box, scale: float, *, gap: float | None = None
) -> npt.NDArray[np.uint8]:
    """Resize `box`, given in stored pixels, to `size`; return [H, W, 3] RGB, transparency laid over white.

    With `gap` it is first reduced by whole factors to that many times `size`: faster, and good enough to look at.
    """
    left, top, right, bottom = (side / scale for side in box)
    x, y = int(left), int(top)
    # Cut out first, or the filter would reach over the border: a region must give what the same crop gives.
    outer = (x, y, min(math.ceil(right), decoded.width), min(math.ceil(bottom), decoded.height))
    decoded = decoded if outer == (0, 0, *decoded.size) else decoded.crop(outer)
    inside = (left - x, top - y, min(right - x, decoded.width), min(bottom - y, decoded.height))
    # Pillow resizes RGBA premultiplied, so what is transparent lends its colour to nothing.
    small = decoded.resize(size, Image.Resampling.BICUBIC, box=inside, reducing_gap=gap)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", size, "white"), small)
    return np.asarray(small.convert("RGB"))


def _thumbnail(decoded: Image.Image, turn: Turn, seen: tuple[int, int], scale: float) -> bytes:
    """Return a JPEG of the whole picture without metadata; a small picture is not enlarged."""
    ratio = min(1.0, THUMBNAIL_SIDE / max(seen))
    size = turn.size(*(max(1, round(side * ratio)) for side in seen))
    pixels = turn.apply(_resized(decoded, size, (0.0, 0.0, *turn.size(*seen)), scale, gap=2.0))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()
