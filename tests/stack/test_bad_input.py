"""Bad input through the whole stack: the code, the field, and nothing else breaks. Odd pictures are decoded rightly."""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from stack.photos import encoded, pixels_of, wheel

from landseer.v1 import common_pb2, index_pb2, search_pb2

pytestmark = pytest.mark.stack

PLAIN = {"first_stage": "global", "reranking": "none"}
Search, Describe, Upsert = search_pb2.SearchRequest, search_pb2.DescribeRequest, index_pb2.UpsertRequest
COFFEE = wheel("coffee.png").read_bytes()
JPEG = wheel("rocket.jpg").read_bytes()


def png_header(width, height):
    """Return a PNG that says it is so large; decoded, it would take gigabytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


PICTURES = {
    "text": b"Which of my pictures show this very thing?",
    "noise": bytes(range(256)) * 64,
    "no bytes": b"",
    "truncated JPEG": JPEG[: len(JPEG) // 2],
    "truncated PNG": COFFEE[: len(COFFEE) // 2],
    "only a header": JPEG[:100],
    "over the byte limit": JPEG + bytes(21 * 2**20),
    "over the pixel limit": png_header(20_000, 20_000),
    "far over the pixel limit": png_header(2**31 - 1, 2**31 - 1),
}
BOXES = {
    "beside the picture": (700, 10, 50, 50),
    "across its edge": (500, 300, 200, 50),
    "negative corner": (-10, 0, 50, 50),
    "negative width": (50, 50, -20, 20),
    "no area": (10, 10, 0, 0),
    "NaN": (math.nan, 0, 50, 50),
    "infinite": (0, 0, math.inf, 50),
}
SIZE = 1280
SEARCHES = {
    "no query": (Search(), "query"),
    "top_k of 0": (Search(image=COFFEE, top_k=0), "top_k"),
    "top_k too large": (Search(image=COFFEE, top_k=1001), "top_k"),
    "top_k of 2^32 - 1": (Search(image=COFFEE, top_k=2**32 - 1), "top_k"),
    "short descriptor": (Search(descriptor={"values": [1.0] * (SIZE - 1)}), "descriptor.values"),
    "long descriptor": (Search(descriptor={"values": [1.0] * (SIZE + 1)}), "descriptor.values"),
    "no descriptor": (Search(descriptor={}), "descriptor.values"),
    "NaN": (Search(descriptor={"values": [1.0] * (SIZE - 1) + [math.nan]}), "descriptor.values"),
    "infinity": (Search(descriptor={"values": [-math.inf] + [1.0] * (SIZE - 1)}), "descriptor.values"),
    "zero vector": (Search(descriptor={"values": [0.0] * SIZE}), "descriptor.values"),
    "empty id": (Search(id=""), "id"),
    "region of an id": (Search(id="album/coffee.png", region={"width": 9, "height": 9}), "region"),
    "too many neighbours": (Search(image=COFFEE, expansion={"neighbours": 1001}), "expansion.neighbours"),
    "too many candidates": (Search(image=COFFEE, reranking={"candidates": 1001}), "reranking.candidates"),
    "weight above 1": (Search(image=COFFEE, reranking={"weight": 1.01}), "reranking.weight"),
}


@pytest.fixture(autouse=True)
def afterwards_a_good_search_still_works(landseer, album):
    yield
    assert landseer.serving()
    [hit] = landseer.client.search(COFFEE, top_k=1, **PLAIN).hits
    assert hit.id == "album/coffee.png"
    assert hit.score > 0.999


def named(landseer, call, request, field):
    refusal = landseer.refused(call, request)
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", "INVALID_INPUT", [field])
    assert refusal.message.startswith(f"{field}: ")
    assert len(refusal.message) <= 600
    assert refusal.retry_s is None


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_is_none(landseer, kind):
    image = PICTURES[kind]
    pictures = landseer.client.stats().pictures
    named(landseer, landseer.search.Search, Search(image=image), "image")
    named(landseer, landseer.search.Describe, Describe(image=image), "image")
    named(landseer, landseer.index.Upsert, Upsert(picture={"id": "bad/one", "image": image}), "picture.image")
    assert landseer.client.stats().pictures == pictures


@pytest.mark.parametrize("kind", BOXES)
def test_a_box_outside_the_picture(landseer, kind):
    x, y, width, height = BOXES[kind]
    region = common_pb2.Box(x=x, y=y, width=width, height=height)
    named(landseer, landseer.search.Search, Search(image=COFFEE, region=region), "region")
    named(landseer, landseer.search.Describe, Describe(image=COFFEE, region=region), "region")


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_search_that_makes_no_sense(landseer, kind):
    request, field = SEARCHES[kind]
    named(landseer, landseer.search.Search, request, field)


@pytest.mark.parametrize("id", ["", "x" * 501, "new\nline"])
def test_an_id_that_cannot_be(landseer, id):
    named(landseer, landseer.index.Upsert, Upsert(picture={"id": id, "image": COFFEE}), "picture.id")
    named(landseer, landseer.index.Delete, index_pb2.DeleteRequest(id=id), "id")


def test_a_bad_picture_in_a_stream_stops_no_other(landseer):
    stream = [
        index_pb2.Picture(id="bad/good", image=COFFEE),
        index_pb2.Picture(id="bad/text", image=PICTURES["text"]),
        index_pb2.Picture(id="bad/cut", image=PICTURES["truncated PNG"]),
        index_pb2.Picture(id="bad/rocket", image=JPEG),
    ]
    answer = landseer.client.upsert_many(stream)
    assert answer.indexed == 2
    assert [(one.id, one.position, one.code) for one in answer.failures] == [("bad/text", 1, 3), ("bad/cut", 2, 3)]
    for id in ("bad/good", "bad/rocket"):
        landseer.client.delete(id)


def test_a_picture_of_one_pixel_is_enlarged(landseer):
    one = encoded(np.full((1, 1, 3), 200, np.uint8))
    answer = landseer.client.describe(one)
    assert (answer.width, answer.height) == (1, 1)
    assert np.linalg.norm(answer.descriptor.values) == pytest.approx(1.0, abs=1e-3)
    assert landseer.client.search(one).hits
    landseer.put({"odd/pixel": one})
    assert landseer.client.search(one, top_k=1).hits[0].id == "odd/pixel"
    landseer.client.delete("odd/pixel")


def turned(name):
    """Return a JPEG whose pixels lie on their side, with the EXIF orientation that puts them right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(pixels_of(wheel(name))).rotate(90, expand=True), "JPEG", quality=95, exif=exif)


def animated(name, other, kind):
    first, second = (Image.fromarray(pixels_of(wheel(one))) for one in (name, other))
    return encoded(first, kind, save_all=True, append_images=[second.resize(first.size)], duration=100)


def with_alpha(name):
    """Return a PNG that is transparent at the edge, over colours that must not be seen."""
    pixels = pixels_of(wheel(name))
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:20], pixels[:20] = 0, (255, 0, 255)
    return encoded(np.concatenate([pixels, alpha], axis=-1))


def cmyk(name):
    return encoded(Image.fromarray(pixels_of(wheel(name))).convert("CMYK"), "JPEG", quality=95)


def sixteen_bits(name):
    grey = np.asarray(Image.fromarray(pixels_of(wheel(name))).convert("L")).astype(np.uint16)
    return encoded(Image.fromarray(grey * 257))


def grey(name):
    return encoded(Image.fromarray(pixels_of(wheel(name))).convert("L"), "JPEG", quality=95)


ODD = {
    "animated GIF": lambda: ("album/astronaut.png", animated("astronaut.png", "coffee.png", "GIF")),
    "animated WebP": lambda: ("album/chelsea.png", animated("chelsea.png", "rocket.jpg", "WEBP")),
    "CMYK": lambda: ("album/coffee.png", cmyk("coffee.png")),
    "16-bit": lambda: ("album/camera.png", sixteen_bits("camera.png")),
    "greyscale": lambda: ("album/motorcycle_left.png", grey("motorcycle_left.png")),
    "alpha": lambda: ("album/rocket.jpg", with_alpha("rocket.jpg")),
    "EXIF-rotated": lambda: ("album/chelsea.png", turned("chelsea.png")),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_picture_finds_its_own_first(landseer, kind):
    id, image = ODD[kind]()
    assert landseer.client.search(image, top_k=1).hits[0].id == id
    first, second = landseer.client.search(image, top_k=2, **PLAIN).hits
    assert first.id == id
    assert first.score > 0.8 and first.score > second.score + 0.1, (first.score, second.score)
    told, stored = landseer.client.describe(image), landseer.client.get(id)
    assert (told.width, told.height) == (stored.width, stored.height)
    assert Image.open(io.BytesIO(landseer.client.search(image, explain=True).query_explanation.thumbnail)).mode == "RGB"
