import dataclasses
import io
import math
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from flat_jpeg import flat_jpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures import colour_profile, pictures, png_texts
from landseer.ensemble.pictures.jpeg_scans import in_strips
from landseer.ensemble.pictures.pictures import FORMATS, Region, prepare, target_size, upright
from landseer.ensemble.pictures.png_texts import without_large_texts

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

PROFILE = Profile(backbone="test", weights_sha256="0", sizes=Sizes(channels=8))
SMALL = Profile(
    backbone="test", weights_sha256="0", sizes=Sizes(channels=8), long_side=64, side_multiple=16, min_side=32
)
FUZZ = int(os.environ.get("LANDSEER_FUZZ", "2000"))
EXACT = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
"""Options of formats that lose little, or nothing."""
DATA = Path(__file__).parents[3].parent / "shared" / "data"


def smooth(width=96, height=64):
    """A smooth colour picture that survives JPEG: no two corners or edges are alike."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1)
    blue = 128 + 100 * np.sin(x / 17) * np.cos(y / 13)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encode(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def pixels(data, profile=PROFILE, **options):
    return prepare(data, profile=profile, **options).pixels.astype(int)


def refuse(data, field="image", profile=PROFILE, **options):
    with pytest.raises(InvalidInput) as caught:
        prepare(data, profile=profile, **options)
    assert caught.value.field == field
    return caught.value.description


# The sizing rule.


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((4000, 3000), (640, 480)),
        ((3000, 4000), (480, 640)),
        ((100, 100), (640, 640)),
        ((1, 1), (640, 640)),
        ((640, 427), (640, 416)),  # 427 / 32 = 13.34
        ((640, 432), (640, 448)),  # 13.5: halves go up
        ((10_000, 1), (640, 64)),
        ((1, 10_000), (64, 640)),
        ((1920, 1080), (640, 352)),  # 360 / 32 = 11.25
    ],
)
def test_the_longer_side_becomes_long_side_and_the_other_a_multiple(size, target):
    assert target_size(*size, PROFILE) == target


@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), long_side=st.sampled_from([256, 640, 724, 1600]))
def test_target_sizes_always_suit_the_backbone(width, height, long_side):
    profile = Profile(backbone="test", weights_sha256="0", sizes=Sizes(channels=8), long_side=long_side)
    target = target_size(width, height, profile)
    shorter = target[1] if width >= height else target[0]
    assert max(target) >= long_side and long_side in target
    assert shorter % 32 == 0 and 64 <= shorter <= 1600
    if 64 < shorter < 1600:
        assert abs(shorter - long_side * min(width, height) / max(width, height)) <= 16


def test_pixels_meet_the_contract_of_the_backbone():
    ready = prepare(encode(smooth()), profile=PROFILE)
    assert ready.pixels.shape == (416, 640, 3) and ready.pixels.dtype == np.uint8
    assert ready.pixels.flags.c_contiguous
    assert (ready.width, ready.height) == (96, 64)
    assert ready.region == Region(x=0, y=0, width=96, height=64)
    assert ready.thumbnail == b""


def test_the_same_bytes_give_the_same_pixels_in_many_threads():
    data = encode(smooth(900, 700), "JPEG")
    first = prepare(data, profile=PROFILE).pixels
    with ThreadPoolExecutor(8) as pool:
        for ready in pool.map(lambda _: prepare(data, profile=PROFILE), range(32)):
            np.testing.assert_array_equal(ready.pixels, first)
    assert threading.active_count() < 32


# What is decoded, and how.


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_decoded(format):
    picture = smooth()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(
        format, {}
    )
    # A GIF has 256 colours.
    tolerance = 40 if format == "GIF" else 6
    assert np.abs(pixels(encode(picture, format, **options)) - pixels(encode(picture))).max() <= tolerance


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_compressions_are_decoded(compression):
    found = pixels(encode(smooth(), "TIFF", compression=compression))
    assert np.abs(found - pixels(encode(smooth()))).mean() < 4


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_its_first_frame(format):
    first, second = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    data = encode(first, format, save_all=True, append_images=[second], duration=100, loop=0)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.abs(pixels(data) - (255, 0, 0)).max() <= 3


def test_a_picture_of_several_shots_is_the_first():
    data = encode(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))])
    assert np.abs(pixels(data) - pixels(encode(smooth()))).mean() < 4


def test_cmyk_jpeg_is_inverted_as_adobe_writes_it():
    # Pure cyan at 40 %, no key: red is reduced, nothing else.
    data = encode(Image.new("CMYK", (32, 32), (102, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(pixels(data) - (153, 255, 255)).max() <= 2


def test_ycck_jpeg_is_decoded():
    # Adobe stores inverted inks, and libjpeg takes C, M, Y for 255 minus the red, green and blue of Y, Cb, Cr. So the
    # file holds the inks themselves as YCC. Pillow writes no YCCK: write the planes as CMYK (it inverts what it writes)
    # and say in the Adobe marker that a transform was applied.
    inks, key = Image.new("RGB", (32, 32), (55, 165, 225)), Image.new("L", (32, 32), 255 - 51)
    planes = Image.merge("CMYK", [plane.point(lambda v: 255 - v) for plane in (*inks.convert("YCbCr").split(), key)])
    data = bytearray(encode(planes, "JPEG", quality=100))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    found = pixels(bytes(data))
    assert np.abs(found - np.array([200, 90, 30]) * 0.8).max() <= 4
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[0, 0, ::-1]
    assert np.abs(found[0, 0] - other).max() <= 4


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format):
    ramp = np.linspace(0, 65535, 640 * 640).reshape(640, 640).round().astype(np.uint16)
    found = pixels(encode(Image.fromarray(ramp), format))
    assert np.abs(found - (ramp / 257)[..., None]).max() <= 0.5
    assert found.min() == 0 and found.max() == 255


def test_big_endian_sixteen_bits():
    data = encode(Image.new("I;16B", (40, 40), 0x8000), "TIFF")
    assert data.startswith(b"MM") or data.startswith(b"II")
    assert np.abs(pixels(data) - 128).max() <= 1


def test_greyscale_has_equal_channels():
    found = pixels(encode(smooth().convert("L"), "JPEG"))
    assert (found[..., 0] == found[..., 1]).all() and (found[..., 0] == found[..., 2]).all()


def test_one_bit():
    assert (pixels(encode(Image.new("1", (20, 20), 1))) == 255).all()


def transparent(mode):
    picture = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    picture.paste((0, 0, 200, 255), (0, 0, 32, 64))
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("format", "mode"),
    [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGBA"), ("GIF", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA")],
)
def test_transparent_pixels_become_white(format, mode):
    options = {"lossless": True} if format == "WEBP" else {}
    found = pixels(encode(transparent(mode), format, **options))
    assert (found[:, 400:] == 255).all()
    assert found[:, :240, 0].max() < 60  # blue, or its grey


def test_half_transparent_over_white():
    found = pixels(encode(Image.new("RGBA", (64, 64), (0, 0, 0, 128))))
    assert np.abs(found - 127).max() <= 1


def test_a_transparent_colour_lends_its_colour_to_no_edge():
    # White that is transparent next to opaque white: all white, although the hidden colour is black.
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 31, 64))
    assert pixels(encode(picture)).min() >= 254


def test_transparent_sixteen_bit_grey():
    header = struct.pack(">IIBBBBB", 16, 1, 16, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + struct.pack(">16H", *[1000] * 8, *[30000] * 8))
    found = pixels(png(header, (b"tRNS", struct.pack(">H", 1000)), (b"IDAT", rows)))
    assert found[0, 0, 0] == 255 and abs(found[0, -1, 0] - 117) <= 1


def test_twelve_bits_and_white_is_zero():
    # Two pixels, 12 bits each: 0 and 4095.
    tiff = simple_tiff(width=2, height=1, bits=12, photometric=1, strip=bytes([0x00, 0x0F, 0xFF]))
    found = pixels(tiff)
    assert found[0, 0, 0] == 0 and found[0, -1, 0] == 255
    inverted = pixels(simple_tiff(width=2, height=1, bits=16, photometric=0, strip=struct.pack("<HH", 0, 65535)))
    assert inverted[0, 0, 0] == 255 and inverted[0, -1, 0] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations(orientation, format):
    upright = smooth(96, 64)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}.get(
        format, {}
    )
    data = encode(stored, format, exif=exif, **options)
    whole = prepare(data, profile=PROFILE, thumbnail=True)
    assert (whole.width, whole.height) == (96, 64)
    assert np.abs(whole.pixels.astype(int) - pixels(encode(upright))).max() <= 6
    assert Image.open(io.BytesIO(whole.thumbnail)).size == (96, 64)
    region = Region(x=10, y=4, width=50, height=20)
    part = pixels(data, region=region)
    assert np.abs(part - pixels(encode(upright), region=region)).max() <= 6


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_at_its_own_size_is_upright(orientation, format):
    picture, exif = smooth(97, 61), Image.Exif()
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    exif[0x0112] = orientation
    stored = picture if undo is None else picture.transpose(undo)
    np.testing.assert_array_equal(upright(encode(stored, format, exif=exif)), np.asarray(picture))


def test_a_picture_at_its_own_size_has_the_same_limits():
    for data, limits in ((b"", Limits()), (b"no picture", Limits()), (encode(smooth()), Limits(max_pixels=100))):
        with pytest.raises(InvalidInput) as caught:
            upright(data, limits=limits)
        assert caught.value.field == "image"


def test_orientation_told_after_the_pixels_of_a_png():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(smooth(96, 64))
    body = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    end = data.index(b"IEND") - 4
    ready = prepare(data[:end] + chunk + data[end:], profile=PROFILE)
    assert (ready.width, ready.height) == (64, 96)


def test_broken_exif_spoils_no_picture():
    data = encode(smooth(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (prepare(data, profile=PROFILE).pixels == prepare(encode(smooth(), "JPEG"), profile=PROFILE).pixels).all()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_an_agreed_range_are_refused(mode):
    assert "no agreed range" in refuse(encode(Image.new(mode, (20, 20), 3), "TIFF"))


# Scaled decoding.


@pytest.mark.parametrize("size", [(2600, 1950), (2603, 1957), (5121, 700)])
def test_a_large_jpeg_is_decoded_smaller_without_harm(size, monkeypatch):
    picture = smooth(*size)
    exact = pixels(encode(picture, "BMP"))
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    found = pixels(encode(picture, "JPEG", quality=95))
    assert min(decoded)[0] <= math.ceil(size[0] / 4)
    assert np.abs(found - exact).max() <= 8
    assert np.abs(found - exact).mean() < 1


def test_a_region_is_decoded_at_its_own_resolution():
    # Stripes two pixels wide are grey in the whole picture and plain to see in a region.
    stripes = np.zeros((1600, 2400, 3), np.uint8)
    stripes[:, (np.arange(2400) // 2) % 2 == 0] = 255
    data = encode(Image.fromarray(stripes), "JPEG", quality=95)
    assert pixels(data).std() < 20
    region = pixels(data, region=Region(x=1000, y=800, width=160, height=160))
    assert region.std() > 100


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_regions_of_a_scaled_jpeg_are_where_they_should_be(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = smooth(3001, 2003)
    stored = {1: picture, 3: picture.transpose(3), 6: picture.transpose(2)}[orientation]
    region = Region(x=1234.5, y=301.25, width=1700, height=1600.5)
    found = pixels(encode(stored, "JPEG", quality=95, exif=exif), region=region)
    assert np.abs(found - pixels(encode(picture, "BMP"), region=region, limits=Limits(max_bytes=2**30))).max() <= 8


PEAK = """
import resource, sys
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
profile = Profile(backbone="test", weights_sha256="0", sizes=Sizes(channels=8))
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ready = prepare(data, profile=profile, thumbnail=True)
print(ready.width, ready.height, *ready.pixels.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_two_hundred_megapixels_of_a_phone_take_little_memory():
    data = flat_jpeg(16_320, 12_240)
    ran = subprocess.run([sys.executable, "-c", PEAK], input=data, capture_output=True, check=True)
    *shapes, kibibytes = map(int, ran.stdout.split())
    assert shapes == [16_320, 12_240, 480, 640, 3]
    assert kibibytes < 100 * 1024  # 23 MiB were measured; undivided it would take 760.


def test_a_jpeg_may_have_more_pixels_if_it_is_reduced_while_it_is_decoded(monkeypatch):
    limits = Limits(max_pixels=400 * 300)
    large, progressive = flat_jpeg(800, 600), flat_jpeg(800, 600, kind="progressive")
    assert prepare(large, profile=PROFILE, limits=limits).width == 800
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    small = Region(x=700, y=500, width=100, height=100)
    assert prepare(large, profile=PROFILE, limits=limits, region=small).region == small
    assert decoded[0] == (400, 300)
    assert "at most 120,000, or 480,000 of a JPEG that is not progressive" in refuse(progressive, limits=limits)
    assert "at most 480,000;" in refuse(flat_jpeg(801, 600), limits=limits)
    with pytest.raises(InvalidInput, match="at most 120,000"):
        upright(large, limits=limits)


@pytest.mark.parametrize(
    ("options", "strips"),
    [({}, True), ({"progressive": True}, False), ({"restart_marker_rows": 1, "comment": b"\xff\xda"}, True)],
    ids=str,
)
def test_progressive_jpegs_are_known_by_their_headers(options, strips):
    for picture in (smooth(), smooth().convert("L"), smooth().convert("CMYK")):
        assert in_strips(encode(picture, "JPEG", **options)) == strips


def test_a_jpeg_with_a_scan_for_each_colour_is_kept_whole():
    data = encode(smooth(), "JPEG")
    at = data.index(b"\xff\xda") + 4
    assert in_strips(data) and not in_strips(data[:at] + b"\1" + data[at + 1 :])


@given(st.binary(max_size=200))
def test_any_bytes_may_be_asked_about(tail):
    in_strips(b"\xff\xd8" + tail)


# Regions.


def test_a_region_is_a_crop():
    picture = smooth()
    crop = encode(picture.crop((20, 10, 70, 50)))
    ready = prepare(encode(picture), profile=PROFILE, region=Region(x=20, y=10, width=50, height=40))
    assert (ready.width, ready.height) == (96, 64)
    np.testing.assert_array_equal(ready.pixels, pixels(crop))


def test_half_a_pixel_outside_is_cut_off():
    ready = prepare(encode(smooth()), profile=PROFILE, region=Region(x=-0.4, y=-0.5, width=96.9, height=65))
    assert ready.region == Region(x=0, y=0, width=96, height=64)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((math.nan, 0, 10, 10), "finite"),
        ((0, 0, math.inf, 10), "finite"),
        ((0, 0, 0, 10), "at least 1 x 1"),
        ((0, 0, 10, -3), "at least 1 x 1"),
        ((5, 5, 0.9, 10), "at least 1 x 1"),
        ((-0.6, 0, 10, 10), "inside the picture, 96 x 64"),
        ((90, 0, 10, 10), "inside the picture"),
        ((0, 60, 10, 4.6), "inside the picture"),
        ((500, 500, 10, 10), "inside the picture"),
    ],
)
def test_impossible_regions_are_refused(region, message):
    x, y, width, height = region
    assert message in refuse(encode(smooth()), "region", region=Region(x=x, y=y, width=width, height=height))


def test_the_smallest_regions_and_pictures_are_enlarged():
    one = prepare(encode(smooth()), profile=PROFILE, region=Region(x=95.5, y=63.5, width=1, height=1))
    assert one.pixels.shape == (640, 640, 3)
    for format in FORMATS:
        tiny = encode(Image.new("RGB", (1, 1), (250, 10, 10)), format)
        assert np.abs(pixels(tiny) - (250, 10, 10)).max() <= 4


# Thumbnails.


@pytest.mark.parametrize(("size", "small"), [((900, 600), (256, 171)), ((100, 50), (100, 50)), ((5000, 2), (256, 1))])
def test_a_thumbnail_is_small_and_of_the_whole_picture(size, small):
    region = Region(x=0, y=0, width=40, height=2)
    ready = prepare(encode(smooth(*size), "JPEG"), profile=PROFILE, thumbnail=True, region=region)
    thumbnail = Image.open(io.BytesIO(ready.thumbnail))
    assert thumbnail.format == "JPEG" and thumbnail.size == small
    assert not thumbnail.getexif() and "icc_profile" not in thumbnail.info
    expected = np.asarray(smooth(*size).resize(small, Image.Resampling.BICUBIC), int)
    assert min(small) == 1 or np.abs(np.asarray(thumbnail, int) - expected).mean() < 6


# What is refused.


def test_no_bytes():
    assert "no bytes" in refuse(b"")


@pytest.mark.parametrize("data", [b"x", b"hello, world " * 50, b"\x89PNG\r\n\x1a\n", b"<svg></svg>", bytes(1000)])
def test_not_a_picture(data):
    assert "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF" in refuse(data) or data.startswith(b"\x89PNG")


@pytest.mark.parametrize("format", ["PPM", "ICO", "TGA", "JPEG2000", "PCX", "PDF", "EPS"])
def test_other_formats_are_refused_with_the_list(format):
    assert "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF" in refuse(encode(smooth(), format))


def test_too_many_bytes():
    message = refuse(encode(smooth()), limits=Limits(max_bytes=100))
    assert "at most 100" in message


def test_too_many_pixels_are_refused_from_the_header(monkeypatch):
    encodings = [encode(smooth(), format) for format in FORMATS]

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr(Image.Image, "load", load)
    for format, data in zip(FORMATS, encodings, strict=True):
        most = 6143 // 4 if format == "JPEG" else 6143  # It may be decoded at half its size.
        assert "96 x 64" in refuse(data, limits=Limits(max_pixels=most))


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_promises_a_huge_picture(width, height):
    message = refuse(png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), (b"IDAT", zlib.compress(bytes(1000)))))
    assert "pixels" in message


def test_just_within_the_pixel_limit_nothing_warns(recwarn):
    pictures._formats.cache_clear()  # pytest takes back what another test filtered
    ready = prepare(encode(Image.new("1", (9990, 9990))), profile=PROFILE)
    assert ready.width == 9990
    assert not recwarn.list


def test_a_tile_larger_than_the_picture():
    data = simple_tiff(width=1, height=1, bits=8, photometric=1, strip=b"\0", tile=(60_000, 60_000))
    assert "3,600,000,000 pixels to decode" in refuse(data)


def test_texts_that_grow_are_left_out():
    bomb = zlib.compress(bytes(50 * 2**20), 9)
    texts = {b"zTXt": b"comment\0\0", b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0", b"iCCP": b"profile\0\0"}
    plain = encode(smooth())
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (plain, encode(smooth(), exif=exif)):
        for name, start in texts.items():
            for place in (33, data.index(b"IEND") - 4):  # Before the pixels and after them.
                grown = data[:place] + chunk(name, start + bomb) + data[place:]
                assert (pixels(grown) == pixels(data)).all()


def test_a_small_text_beside_one_that_grows_stays():
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><a tiff:Orientation="6"/></x:xmpmeta>'
    texts = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + chunk(
        b"zTXt", b"comment\0\0" + zlib.compress(bytes(2 * 2**20))
    )
    data = encode(smooth())
    ready = prepare(data[:33] + texts + data[33:], profile=PROFILE)
    assert (ready.width, ready.height) == (64, 96)


def test_unpacking_texts_is_bounded(monkeypatch):
    unpacked = []
    monkeypatch.setattr(
        png_texts,
        "_unpacked",
        lambda name, body, real=png_texts._unpacked: unpacked.append(real(name, body)) or unpacked[-1],
    )
    bomb = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2 * 2**20), 9))
    data = encode(smooth())
    assert (pixels(data[:33] + 5000 * bomb + data[33:]) == pixels(data)).all()
    assert sum(unpacked) <= png_texts.MOST_IN_ALL + 2**20 + 1
    many = chunk(b"tEXt", b"a\0" + bytes(2**20 - 2))
    assert len(without_large_texts(data[:33] + 70 * many + data[33:])) < len(data) + 9 * 2**20
    assert (pixels(data[:33] + 70 * many + data[33:], limits=Limits(max_bytes=2**27)) == pixels(data)).all()


@given(st.binary(max_size=200))
def test_leaving_out_texts_of_any_bytes(tail):
    data = encode(smooth())
    assert without_large_texts(data) == data
    for cut in (0, 5, 8, 20, 33, len(data)):
        without_large_texts(data[:cut] + tail)


# Colour profiles.


# Red, green and blue as X, Y and Z, under D50.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def in_srgb(colour, primaries, gamma=2.2):
    """A colour of a profile in sRGB, by the definition."""
    light = (np.array(colour) / 255) ** gamma @ np.array(primaries) @ np.linalg.inv(SRGB_PRIMARIES)
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def display_p3():
    """The bytes of a profile with the primaries of Display P3 and a gamma of 2.2."""
    return rgb_profile(DISPLAY_P3)


def rgb_profile(primaries, gamma=2.2, size=0):
    """An ICC profile of red, green and blue, each X, Y and Z, and a gamma; `size`: bytes to fill it up to."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    tags |= {name: xyz(*primary) for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile(b"RGB ", tags, size)


def grey_profile(gamma):
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return profile(b"GRAY", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": curve})


def xyz(*values):
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def profile(colours, tags, size=0):
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    whole = max(start + len(body), size)
    head = struct.pack(">I4sI4s4s4s", whole, b"lcms", 0x02100000, b"mntr", colours, b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return (head.ljust(128, b"\0") + table + body).ljust(whole, b"\0")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_is_followed(format):
    options = EXACT.get(format, {})
    colour = Image.new("RGB", (40, 30), (200, 100, 60))
    plain = encode(colour, format, **options)
    profiled = encode(colour, format, icc_profile=display_p3(), **options)
    assert np.abs(pixels(plain) - (200, 100, 60)).max() <= 3
    expected = in_srgb((200, 100, 60), DISPLAY_P3)
    assert expected[0] > 210 and expected[2] < 50  # More saturated.
    assert np.abs(pixels(profiled) - expected).max() <= 4
    assert np.abs(upright(profiled).astype(int) - expected).max() <= 4
    thumbnail = prepare(profiled, profile=PROFILE, thumbnail=True).thumbnail
    assert np.abs(np.asarray(Image.open(io.BytesIO(thumbnail)), int) - expected).max() <= 6


def test_white_black_and_transparency_stay_with_a_profile():
    for colour in ("white", "black"):
        data = encode(Image.new("RGB", (20, 20), colour), icc_profile=display_p3())
        assert np.abs(pixels(data) - (255 if colour == "white" else 0)).max() <= 1
    clear = encode(Image.new("RGBA", (20, 20), (200, 0, 0, 0)), icc_profile=display_p3())
    assert np.abs(pixels(clear) - 255).max() <= 1


def test_a_profile_that_says_srgb_changes_nothing():
    assert (pixels(encode(smooth(), icc_profile=SRGB)) == pixels(encode(smooth()))).all()


def test_grey_pictures_follow_profiles_of_grey_and_of_colours():
    grey = Image.new("L", (20, 20), 128)
    assert np.abs(pixels(encode(grey, icc_profile=grey_profile(1.0))) - 188).max() <= 2
    assert np.abs(pixels(encode(grey, icc_profile=rgb_profile(SRGB_PRIMARIES, gamma=1.0))) - 188).max() <= 2
    sixteen = Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))
    assert np.abs(pixels(encode(sixteen, icc_profile=grey_profile(1.0))) - 188).max() <= 2


@pytest.mark.parametrize(
    "bad",
    [
        *(b"not a profile at all", b"\0" * 200, display_p3()[:150], grey_profile(1.0), b"x"),
        rgb_profile(SRGB_PRIMARIES, gamma=1.0, size=colour_profile.LARGEST + 1),
    ],
)
def test_a_profile_that_does_not_fit_is_left_alone(bad):
    assert (pixels(encode(smooth(), "JPEG", icc_profile=bad)) == pixels(encode(smooth(), "JPEG"))).all()
    inks = encode(smooth().convert("CMYK"), "JPEG")
    assert (pixels(encode(smooth().convert("CMYK"), "JPEG", icc_profile=display_p3()[:150])) == pixels(inks)).all()


def test_a_profile_of_many_steps_takes_no_time():
    matrix = b"matf" + bytes(4) + struct.pack(">HH", 3, 3) + struct.pack(">12f", *np.eye(3).ravel(), 0, 0, 0)
    steps = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, 4000) + struct.pack(">II", 16 + 32000, 64) * 4000 + matrix
    for name in (b"A2B0", b"A2B1", b"D2B0", b"D2B1"):
        data = bytearray(profile(b"RGB ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), name: steps}))
        data[8] = 4
        started = time.process_time()
        assert (pixels(encode(smooth(), icc_profile=bytes(data))) == pixels(encode(smooth()))).all()
        assert time.process_time() - started < 2


def test_profiles_are_followed_alike_in_threads():
    kinds = [encode(smooth(), icc_profile=rgb_profile(SRGB_PRIMARIES, gamma=gamma)) for gamma in (1.0, 1.4, 1.8)]
    alone = [pixels(data) for data in kinds]
    colour_profile._transform.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(lambda number: pixels(kinds[number % 3]), range(48))):
            np.testing.assert_array_equal(found, alone[number % 3])


def test_mutated_profiles_are_followed_or_left_alone():
    draws = random.Random(1)
    for good in (display_p3(), SRGB, grey_profile(2.0)):
        for _ in range(FUZZ // 20):
            bad = bytearray(good)
            for _ in range(draws.choice((1, 2, 8))):
                bad[draws.randrange(len(bad))] = draws.randrange(256)
            assert colour_profile.to_srgb(Image.new("RGB", (2, 2)), bytes(bad)).mode == "RGB"
            assert colour_profile.to_srgb(Image.new("L", (2, 2)), bytes(bad)).mode == "RGB"


# HEIC.

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_heic_without_its_reader_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    pictures._formats.cache_clear()
    try:
        assert refuse(HEIC).endswith("pip install 'landseer[heif]'), or send JPEG")
    finally:
        pictures._formats.cache_clear()


def test_heic_is_decoded_where_its_reader_is_installed():
    pytest.importorskip("pillow_heif")
    refuse(HEIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = pixels(encode(smooth()))
    assert np.abs(pixels(encode(smooth(), "HEIF", quality=-1)) - whole).mean() < 3
    turned = Image.open(io.BytesIO(encode(smooth(), "JPEG", exif=exif)))
    ready = prepare(encode(turned, "HEIF"), profile=PROFILE)
    assert (ready.width, ready.height) == (64, 96)
    assert "96 x 64" in refuse(encode(smooth(), "HEIF"), limits=Limits(max_pixels=6143))


@pytest.mark.parametrize("name", ["MemoryError", "KeyboardInterrupt"])
def test_a_memory_error_is_not_reported_as_a_bad_picture(name, monkeypatch):
    fault = {"MemoryError": MemoryError, "KeyboardInterrupt": KeyboardInterrupt}[name]

    def load(self):
        raise fault

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(fault):
        prepare(encode(smooth()), profile=PROFILE)


def variants():
    """Small encodings of every kind, by name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, rng = smooth(24, 17), np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (17, 24, 3), dtype=np.uint8))
    frames = {"save_all": True, "append_images": [noise], "duration": 50}
    texts = PngImagePlugin.PngInfo()
    for zip in (False, True):
        texts.add_text("Comment", "x" * 40, zip=zip)
        texts.add_itxt("Title", "y" * 40, "en", "Titel", zip=zip)
    heif = {}
    if "HEIF" in pictures._formats():
        heif = {
            "heic": encode(noise, "HEIF", exif=exif, quality=50),
            "heic pictures": encode(noise, "HEIF", save_all=True, append_images=[picture]),
        }
    return {
        **heif,
        "mpo": encode(noise, "MPO", save_all=True, append_images=[picture], exif=exif),
        "png chunks": encode(noise, pnginfo=texts, icc_profile=display_p3(), exif=exif, dpi=(72, 72)),
        "jpeg icc": encode(noise, "JPEG", icc_profile=display_p3(), comment=b"z" * 40),
        "webp icc": encode(noise, "WEBP", icc_profile=grey_profile(2.0), xmp=b"<x/>"),
        "jpeg": encode(noise, "JPEG", exif=exif),
        "progressive": encode(noise, "JPEG", progressive=True),
        "cmyk": encode(noise.convert("CMYK"), "JPEG"),
        "grey jpeg": encode(noise.convert("L"), "JPEG"),
        "png": encode(noise, exif=exif),
        "interlaced palette": encode(noise.convert("P"), transparency=3),
        "grey alpha": encode(noise.convert("LA")),
        "16 bits": encode(Image.fromarray(rng.integers(0, 65536, (17, 24), dtype=np.uint16))),
        "apng": encode(noise, **frames),
        "webp": encode(noise, "WEBP", exif=exif),
        "lossless webp": encode(noise.convert("RGBA"), "WEBP", lossless=True),
        "animated webp": encode(noise, "WEBP", **frames),
        "gif": encode(noise, "GIF"),
        "animated gif": encode(noise, "GIF", transparency=2, **frames),
        "avif": encode(noise, "AVIF", exif=exif),
        "animated avif": encode(noise, "AVIF", **frames),
        "bmp": encode(noise, "BMP"),
        "bmp palette": encode(noise.convert("P"), "BMP"),
        "tiff": encode(noise, "TIFF", exif=exif),
        "tiff lzw": encode(picture, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(noise, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encode(noise, "TIFF", compression="jpeg"),
        "tiff g4": encode(noise.convert("1"), "TIFF", compression="group4"),
        "tiff 16": encode(Image.fromarray(rng.integers(0, 65536, (17, 24), dtype=np.uint16)), "TIFF"),
        "tiff pages": encode(noise, "TIFF", save_all=True, append_images=[picture]),
    }


VARIANTS = variants()
PNG = b"\x89PNG\r\n\x1a\n"
TINY = Limits(max_bytes=2**16, max_pixels=50_000)


def attempt(data):
    """Prepare with every option on; None if it was rejected as expected."""
    try:
        return prepare(data, profile=SMALL, limits=TINY, thumbnail=True)
    except InvalidInput as error:
        assert error.field == "image" and error.description
        return None


@pytest.mark.parametrize("name", VARIANTS)
def test_a_picture_cut_short_is_refused_or_whole(name):
    data = VARIANTS[name]
    whole = attempt(data)
    assert whole is not None
    stride = max(1, len(data) // 60)
    cuts = {*range(0, len(data), stride), *range(max(len(data) - 40, 0), len(data))}
    for cut in sorted(cuts):
        ready = attempt(data[:cut])
        if ready is not None:
            # Only what follows the pixels may be missing; the orientation may be among it.
            assert ready.width == whole.width or name == "tiff"
            np.testing.assert_array_equal(np.sort(ready.pixels, axis=None), np.sort(whole.pixels, axis=None))
    assert attempt(data[: len(data) // 2]) is None or name in ("tiff pages", "mpo")


@pytest.mark.parametrize("name", VARIANTS)
def test_mutated_pictures_are_refused_or_decoded(name):
    draws = random.Random(name)
    data = VARIANTS[name]
    process = psutil.Process()
    files, before = process.num_fds(), process.memory_info().rss
    for _ in range(FUZZ // len(VARIANTS)):
        mutant = bytearray(data)
        for _ in range(draws.choice((1, 1, 2, 4, 16))):
            # Headers decide most, so half of the changes go there.
            place = draws.randrange(min(len(data), 64) if draws.random() < 0.5 else len(data))
            mutant[place] = draws.choice(
                (0, 0xFF, 0x7F, 0x80, draws.randrange(256), mutant[place] ^ 1 << draws.randrange(8))
            )
        if draws.random() < 0.3:
            del mutant[draws.randrange(len(mutant)) :]
        # Half the time with the right checksums, without which a reader of PNG looks no further.
        attempt(checked(bytes(mutant)) if data.startswith(PNG) and draws.random() < 0.5 else bytes(mutant))
    assert process.num_fds() == files
    assert process.memory_info().rss - before < 100 * 2**20


@settings(max_examples=min(FUZZ // 10, 2000), deadline=None, suppress_health_check=list(HealthCheck))
@given(head=st.sampled_from([b"", *(data[:24] for data in VARIANTS.values())]), tail=st.binary(max_size=300))
def test_random_bytes_are_refused_or_decoded(head, tail):
    attempt(head + tail)


@settings(max_examples=100, deadline=None)
@given(
    x=st.floats(-2, 30), y=st.floats(-2, 30), width=st.floats(width=32), height=st.floats(-1, 40), turned=st.booleans()
)
def test_any_region_is_refused_or_cut(x, y, width, height, turned):
    region = Region(x=x, y=y, width=width, height=height)
    try:
        ready = prepare(VARIANTS["jpeg" if turned else "webp"], profile=SMALL, region=region)
    except InvalidInput as error:
        assert error.field == "region"
    else:
        cut = ready.region
        assert cut.x >= 0 and cut.y >= 0
        assert cut.x + cut.width <= ready.width + 1e-9 and cut.y + cut.height <= ready.height + 1e-9


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the photographs of ../shared/data")
def test_real_photographs():
    photographs = sorted(DATA.glob("grocery/**/*.jpg"))[::500]
    assert photographs
    for path in photographs:
        data = path.read_bytes()
        ready = prepare(data, profile=PROFILE, thumbnail=True)
        assert max(ready.pixels.shape) == 640 and ready.pixels.std() > 5
        refuse(data[: len(data) // 2])


def checked(data):
    """A PNG, which may be damaged, with the checksum of each chunk set right."""
    mended, at = bytearray(data), len(PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))[: max(len(data) - end, 0)]
        at = end + 4
    return bytes(mended[: len(data)])


def png(header, *chunks):
    """A PNG of the given IHDR and chunks."""
    parts = [chunk(name, body) for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts])


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def simple_tiff(*, width, height, bits, photometric, strip, tile=None):
    """A little-endian greyscale TIFF of one strip, or one tile."""
    where = 8
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (277, 3, 1)]
    if tile:
        tags += [(322, 4, tile[0]), (323, 4, tile[1]), (324, 4, where), (325, 4, len(strip))]
    else:
        tags += [(273, 4, where), (278, 4, height), (279, 4, len(strip))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    strip += b"\0" * (len(strip) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + directory + bytes(4)


REGIONS = [
    pictures.Region(x=100, y=50, width=900, height=1100),
    pictures.Region(x=0, y=0, width=300, height=400),
    pictures.Region(x=40, y=700, width=299.5, height=410.25),
    pictures.Region(x=0, y=0, width=1200, height=1600),
    pictures.Region(x=200, y=250, width=320, height=390),
]


@pytest.mark.parametrize(("format", "decodings"), [("JPEG", 2), ("PNG", 1)])
def test_regions_are_those_prepared_alone_with_fewer_decodings(monkeypatch, format, decodings):
    """A JPEG is decoded once for all regions that need it at one of its sizes."""
    small = dataclasses.replace(PROFILE, long_side=256)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(smooth(1600, 1200), format, exif=exif)
    alone = [pictures.prepare(data, profile=small, region=region) for region in REGIONS]
    counted, colours = [], pictures._colours
    monkeypatch.setattr(pictures, "_colours", lambda picture: (counted.append(1), colours(picture))[1])
    together = pictures.prepare_regions(data, REGIONS, profile=small)
    assert len(counted) == decodings
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.region, one.width, one.height) == (other.region, other.width, other.height)


def test_regions_of_a_picture_that_cannot_be_read_or_are_outside():
    good = encode(smooth(96, 64), "JPEG")
    for data, region, field in (
        (b"junk", REGIONS[0], "image"),
        (good[:-200], pictures.Region(x=0, y=0, width=9, height=9), "image"),
        (good, REGIONS[0], "region"),
    ):
        with pytest.raises(InvalidInput) as caught:
            pictures.prepare_regions(data, [region], profile=PROFILE)
        assert caught.value.field == field
    assert pictures.prepare_regions(good, [], profile=PROFILE) == []
