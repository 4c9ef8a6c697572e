"""Queries turned by a right angle."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from landseer.client.cli import Parser
from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.pictures.pictures import Region
from landseer.ops.commands import evaluate as command
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.turning import shown

LIMITS = Limits()
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
"""Red and green over blue and white."""


def encoded(pixels, orientation=1):
    picture, file = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(file, "PNG", exif=exif)
    return file.getvalue()


def decoded(data):
    with Image.open(io.BytesIO(data)) as picture:
        assert not picture.getexif()
        return np.asarray(picture)


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pixels_are_turned_clockwise_and_exif_is_gone(tmp_path, degrees, orientation):
    pixels = np.kron(CORNERS, np.ones((16, 24, 1), np.uint8))
    # As a viewer shows it: 3 is upside down, 6 must be turned clockwise once.
    upright = np.rot90(pixels, {1: 0, 3: 2, 6: -1}[orientation])
    data, region = shown(Shot(path=tmp_path, turn=degrees), encoded(pixels, orientation), LIMITS)
    assert region is None
    np.testing.assert_allclose(decoded(data).astype(int), np.rot90(upright, -degrees // 90).astype(int), atol=6)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_region_is_turned_with_its_picture(tmp_path, degrees):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[8:24, 40:48] = 255
    shot = Shot(path=tmp_path, region=Region(x=40, y=8, width=8, height=16), turn=degrees)
    data, region = shown(shot, encoded(pixels), LIMITS)
    x, y, width, height = (int(side) for side in (region.x, region.y, region.width, region.height))
    seen = decoded(data).astype(int)
    assert seen[y : y + height, x : x + width].min() > 240
    assert (seen > 128).sum() == 3 * 8 * 16 == 3 * width * height


def test_an_upright_picture_is_sent_as_it_is_and_a_broken_one_is_said(tmp_path):
    assert shown(Shot(path=tmp_path), b"no picture", LIMITS) == (b"no picture", None)
    with pytest.raises(InvalidInput, match="not a picture"):
        shown(Shot(path=tmp_path, turn=90), b"no picture", LIMITS)


def test_only_queries_are_turned_and_each_turn_is_described(tmp_path):
    for name in ("a/1.png", "a/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(CORNERS))
    dataset = read(f"folder:{tmp_path}")
    turned = dataset.turned(180)
    assert (dataset.turn, turned.turn) == (0, 180) and dataset.turned(0) == dataset
    assert turned.own_rows() == [0, 1]
    assert len(dataset.pictures()) == 2 and len(turned.pictures()) == 4
    assert "2 queries of 1 class, turned by 180 degrees, 2 references" in turned.summary()
    with vector_cache(tmp_path / "cache", "models") as cache:
        keys = {cache.key(Shot(path=tmp_path, turn=turn), b"bytes") for turn in (0, 90, 180, 270)}
        assert len(keys) == 4


def test_the_option_takes_right_angles(capsys):
    parser = Parser(prog="landseer evaluate")
    command.add_arguments(parser)
    assert [parser.parse_args(["folder:x", *words]).turn for words in ((), ("--turn", "90"))] == [0, 90]
    with pytest.raises(SystemExit):
        parser.parse_args(["folder:x", "--turn", "45"])
    assert "--turn" in capsys.readouterr().err
