"""From the bytes of a picture to pixels for the backbone: decoding, EXIF rotation, region of interest, resizing.

Input is untrusted. Only JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and, with pillow-heif, HEIC are accepted; sizes are
checked before decoding; every error of Pillow becomes InvalidInput; truncated pictures are rejected, not padded with
grey. (libjpeg does not detect a JPEG whose scan is cut short but ends with a valid end marker.) All functions are pure
and may run in several threads.

How pictures are read:

- The first frame of an animation, the first page of a TIFF.
- Transparency is composited over white.
- CMYK and YCCK JPEG are inverted, as Adobe writes them, then converted by the plain formula, without a colour profile.
- 16 and 12 bits are scaled to 8, not clipped. 32-bit integers and floats have no agreed range and are rejected.
- An ICC profile of RGB or grey is followed, after resizing: values become sRGB, also in training and evaluation.
- Texts of a PNG that are too large to unpack are left out.

Resizing is bicubic with antialiasing (Pillow's fixed-point arithmetic, so the same bytes on every machine). The trunks
were trained with bicubic or similar resizing; bilinear blurs when reducing, Lanczos rings and takes 1.5 times as long.
Large JPEGs are decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled inverse transform), the smallest size that is at least the
target: reducing 12 megapixels (4000 x 3000, 2.2 MB) to 640 takes 34 ms on one core instead of 160, at a PSNR of 51.7 dB
instead of 52.9. So a JPEG may have four times as many pixels as are decoded at most: a phone's 200 megapixels
(16,320 x 12,240) take no more memory than a picture of 3. Not if it is progressive: `jpeg_scans`.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from landseer.client.picture_content import HEAD, format_of
from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.colour_profile import to_srgb
from landseer.ensemble.pictures.jpeg_scans import in_strips
from landseer.ensemble.pictures.orientation import TURNS, Box, Turn
from landseer.ensemble.pictures.png_texts import without_large_texts

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
THUMBNAIL_SIDE = 256
THUMBNAIL_QUALITY = 80
TOLERANCE = 0.5
"""How far a region may extend beyond the picture, in pixels."""

_EXPECTED = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
_NO_HEIF = "and the server has no pillow-heif; install it there (pip install 'landseer[heif]'), or send JPEG"
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
    """A picture prepared for the backbone."""

    pixels: npt.NDArray[np.uint8]
    """[H, W, 3] RGB, contiguous, resized as the profile requires."""
    width: int
    """Of the whole picture after EXIF rotation, pixels."""
    height: int
    region: Region
    """What `pixels` shows: the requested region, or the whole picture."""
    thumbnail: bytes
    """A small JPEG of the whole picture, longer side at most 256; empty if not requested."""


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """What to take from a decoded picture, and how large to make it."""

    seen: Region
    box: Box
    """`seen` in stored pixels."""
    target: tuple[int, int]
    """Width and height before turning."""


def prepare(
    data: bytes,
    *,
    profile: Profile,
    limits: Limits = DEFAULT_LIMITS,
    region: Region | None = None,
    thumbnail: bool = False,
) -> Prepared:
    """Decode a picture and resize it, or a region of it, for the backbone.

    InvalidInput names `image` (empty, unknown format, damaged, truncated, too large) or `region` (not finite, smaller
    than a pixel, outside the picture).
    """
    _check_bytes(data, limits)
    with _blaming_the_picture():
        picture = _open(data, limits)
        turn = _turn(picture)
        width, height = turn.size(*picture.size)
        cut = _cut(region, width, height, turn, profile)
        scale = _draft(picture, cut, limits)
        decoded = _colours(picture)
        pixels = turn.apply(_resized(decoded, cut.target, cut.box, scale))
        small = _thumbnail(decoded, turn, (width, height), scale) if thumbnail else b""
    return Prepared(pixels=pixels, width=width, height=height, region=cut.seen, thumbnail=small)


def prepare_regions(
    data: bytes, regions: Sequence[Region], *, profile: Profile, limits: Limits = DEFAULT_LIMITS
) -> list[Prepared]:
    """Decode a picture and resize several regions of it, in order: each as from `prepare`, with the same errors.

    The picture is decoded once for all regions, a JPEG once for those that need it at the same of its four sizes.
    """
    _check_bytes(data, limits)
    found: dict[int, Prepared] = {}
    with _blaming_the_picture():
        picture = _open(data, limits)
        turn = _turn(picture)
        width, height = turn.size(*picture.size)
        alike: dict[float, tuple[ImageFile.ImageFile, list[tuple[int, _Cut]]]] = {}
        for place, region in enumerate(regions):
            cut = _cut(region, width, height, turn, profile)
            # Reads the header only: which size is decoded is settled once per opened JPEG.
            fresh = _open(data, limits) if isinstance(picture, JpegImagePlugin.JpegImageFile) else picture
            alike.setdefault(_draft(fresh, cut, limits), (fresh, []))[1].append((place, cut))
        for scale, (drafted, cuts) in alike.items():
            decoded = _colours(drafted)
            for place, cut in cuts:
                pixels = turn.apply(_resized(decoded, cut.target, cut.box, scale))
                found[place] = Prepared(pixels=pixels, width=width, height=height, region=cut.seen, thumbnail=b"")
    return [found[place] for place in range(len(regions))]


def upright(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> npt.NDArray[np.uint8]:
    """Decode a picture at its own size, after EXIF rotation: RGB [H, W, 3]. InvalidInput as from `prepare`."""
    _check_bytes(data, limits)
    with _blaming_the_picture():
        picture = _open(data, limits, reducible=False)
        size, turn = picture.size, _turn(picture)
        return turn.apply(_resized(_colours(picture), size, (0.0, 0.0, *size), 1.0))


def load_readers() -> None:
    """Load the readers of all formats, which otherwise happens when the first picture is read."""
    Image.init()
    _formats()


def target_size(width: float, height: float, profile: Profile) -> tuple[int, int]:
    """Return width and height, in pixels, to which a picture or region of that size is resized for the backbone.

    The longer side becomes `profile.long_side`, enlarged or reduced. The other side keeps the aspect ratio, rounded to
    the nearest multiple of `profile.side_multiple` (halves up), clamped to `profile.min_side` and `profile.max_side`.
    So the aspect ratio changes by at most half a multiple, and by more only for strips narrower than the minimum.
    """
    longer, shorter, multiple = max(width, height), min(width, height), profile.side_multiple
    other = int((2 * shorter * profile.long_side + longer * multiple) // (2 * longer * multiple)) * multiple
    other = min(max(other, profile.min_side, multiple), profile.max_side)
    return (profile.long_side, other) if width >= height else (other, profile.long_side)


def _check_bytes(data: bytes, limits: Limits) -> None:
    if not data:
        raise InvalidInput("image", f"got no bytes; expected an encoded picture: {_EXPECTED}", kind="empty")
    if len(data) > limits.max_bytes:
        expected = f"expected at most {limits.max_bytes:,}; send a smaller picture, or compress it more"
        raise InvalidInput("image", f"got {len(data):,} bytes; {expected}", kind="bytes")


@contextmanager
def _blaming_the_picture() -> Iterator[None]:
    """Turn all errors of Pillow into InvalidInput, except MemoryError."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidInput(
            "image", f"got bytes that are not a picture; expected a complete {_EXPECTED}", kind="format"
        ) from error
    except Exception as error:
        why = str(error) or type(error).__name__
        raise InvalidInput(
            "image", f"got a damaged or truncated picture ({why}); expected a complete one", kind="damaged"
        ) from error


def _open(data: bytes, limits: Limits, *, reducible: bool = True) -> ImageFile.ImageFile:
    """Open a picture and check it against the limits; decode it, too, unless it is a JPEG.

    reducible: whether a JPEG may be decoded at half its size or less, and so have four times as many pixels.

    A JPEG can be decoded at a smaller size, so decoding waits until that size is known. Other formats must be decoded
    first: PNG may store the orientation after the pixels, and Pillow rotates a TIFF while decoding it.
    """
    formats = _formats()
    try:
        return _opened(data, formats, limits, reducible=reducible)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):
            raise
        return _opened(without_large_texts(data), formats, limits, reducible=reducible)
    except UnidentifiedImageError:
        if format_of(data[:HEAD]) == "HEIF" and "HEIF" not in formats:
            raise InvalidInput("image", f"got HEIC, {_NO_HEIF}", kind="format") from None
        raise


def _opened(data: bytes, formats: tuple[str, ...], limits: Limits, *, reducible: bool) -> ImageFile.ImageFile:
    picture = Image.open(io.BytesIO(data), formats=formats)
    _check_pixels(picture, limits, data if reducible else b"")
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        picture.load()
    return picture


@functools.cache
def _formats() -> tuple[str, ...]:
    """Set Pillow up and return the formats that it reads: HEIC only where pillow-heif is installed.

    Warnings about damaged metadata and large pictures are silenced, and Pillow's own limit of pixels is lifted; we
    check both ourselves. Each picture is decoded by one thread, as several pictures are decoded at once.
    """
    Image.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\b")
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener(thumbnails=False)
    pillow_heif.options.DECODE_THREADS = 1
    return (*FORMATS, "HEIF")


def _check_pixels(picture: ImageFile.ImageFile, limits: Limits, reduced: bytes) -> None:
    """Check the size in the header. Tiles of a TIFF are decoded whole, and may be larger than the picture.

    reduced: the bytes of a picture that may be reduced while it is decoded.
    """
    width, height = picture.size
    pixels, most, why = width * height, limits.max_pixels, ""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        pixels = max(pixels, int(picture.tag_v2.get(_TILE_WIDTH, 0)) * int(picture.tag_v2.get(_TILE_LENGTH, 0)))
    if pixels > most and reduced and isinstance(picture, JpegImagePlugin.JpegImageFile):
        if in_strips(reduced):
            most = limits.max_reduced_pixels
        else:
            why = f", or {limits.max_reduced_pixels:,} of a JPEG that is not progressive"
    if pixels > most:
        got = f"got {width} x {height}, {pixels:,} pixels to decode"
        raise InvalidInput("image", f"{got}; expected at most {most:,}{why}; send a smaller picture", kind="pixels")


def _turn(picture: ImageFile.ImageFile) -> Turn:
    """Return the EXIF orientation; the identity if EXIF cannot be read, as in browsers."""
    try:
        return TURNS.get(picture.getexif().get(_ORIENTATION, 1), TURNS[1])
    except MemoryError:
        raise
    except Exception:
        return TURNS[1]


def _checked_region(region: Region | None, width: int, height: int) -> Region:
    """Return the region clipped to the picture; the whole picture for None. Half a pixel outside is tolerated."""
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


def _cut(region: Region | None, width: int, height: int, turn: Turn, profile: Profile) -> _Cut:
    """Return how to cut a region out of a picture, shown at width x height. InvalidInput for `region`."""
    seen = _checked_region(region, width, height)
    box = turn.stored((seen.x, seen.y, seen.x + seen.width, seen.y + seen.height), width, height)
    return _Cut(seen=seen, box=box, target=turn.size(*target_size(seen.width, seen.height, profile)))


def _draft(picture: ImageFile.ImageFile, cut: _Cut, limits: Limits) -> float:
    """Decode a JPEG smaller if the box stays as large as the target. Return stored pixels per decoded pixel.

    One above the limit is decoded at half its size even if a small region of it must be enlarged then.
    """
    if not isinstance(picture, JpegImagePlugin.JpegImageFile):
        return 1.0
    (width, height), box, target = picture.size, cut.box, cut.target
    asked = (math.ceil(width * target[0] / (box[2] - box[0])), math.ceil(height * target[1] / (box[3] - box[1])))
    if width * height > limits.max_pixels:
        asked = (min(asked[0], width // 2), min(asked[1], height // 2))
    drafted = picture.draft(None, asked)
    return width / drafted[1][2] if drafted else 1.0


def _colours(picture: ImageFile.ImageFile) -> Image.Image:
    """Decode and return mode L, RGB, or, with transparency, RGBA."""
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
    mode = "L" if picture.mode in ("1", "L") else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)  # Pillow would copy it.


def _eight_bits(picture: ImageFile.ImageFile) -> Image.Image:
    """Scale 16-bit greyscale, or 12-bit TIFF, to 8 bits."""
    values, highest = np.asarray(picture).astype(np.uint32), 65535
    transparent = picture.info.get("transparency")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        highest = 2 ** int(picture.tag_v2.get(_BITS, (16,))[0]) - 1
        values = highest - values if picture.tag_v2.get(_PHOTOMETRIC) == 0 else values
    if isinstance(transparent, int):
        values[values == transparent] = highest
    grey = Image.fromarray(((values * 255 + highest // 2) // highest).astype(np.uint8))
    grey.info["icc_profile"] = picture.info.get("icc_profile")
    return grey


def _resized(
    decoded: Image.Image, size: tuple[int, int], box: Box, scale: float, *, gap: float | None = None
) -> npt.NDArray[np.uint8]:
    """Resize `box`, given in stored pixels, to `size`; return [H, W, 3] sRGB, composited over white.

    gap: first reduce by an integer factor to at least that many times `size`: faster, good enough for thumbnails.
    """
    profile = decoded.info.get("icc_profile")
    left, top, right, bottom = (side / scale for side in box)
    x, y = int(left), int(top)
    # Crop first, because the filter would read pixels outside: a region must give the same result as the same crop.
    outer = (x, y, min(math.ceil(right), decoded.width), min(math.ceil(bottom), decoded.height))
    decoded = decoded if outer == (0, 0, *decoded.size) else decoded.crop(outer)
    inside = (left - x, top - y, min(right - x, decoded.width), min(bottom - y, decoded.height))
    # Pillow resizes RGBA premultiplied, so transparent pixels do not bleed their colour.
    small = decoded.resize(size, Image.Resampling.BICUBIC, box=inside, reducing_gap=gap)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", size, "white"), small).convert("RGB")
    return np.asarray(to_srgb(small, profile))


def _thumbnail(decoded: Image.Image, turn: Turn, seen: tuple[int, int], scale: float) -> bytes:
    """Return a JPEG of the whole picture without metadata; small pictures are not enlarged."""
    ratio = min(1.0, THUMBNAIL_SIDE / max(seen))
    size = turn.size(*(max(1, round(side * ratio)) for side in seen))
    pixels = turn.apply(_resized(decoded, size, (0.0, 0.0, *turn.size(*seen)), scale, gap=2.0))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()
