"""`landseer evaluate` with rows that rank by local features, by the exported models."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from stack.photos import WHEEL, wheel

from landseer.client.cli import main

pytestmark = pytest.mark.stack

SIDE = 400
"""Longest side of the pictures: small ones are described sooner."""
METHODS = "none,coattention:5,coattention-naive:5,spatial:5,asmk:64,rasmk:64,words:64+coattention:5"


@pytest.fixture
def folders(tmp_path):
    """A class for each photograph: it and its middle, to be searched; and others to learn words from: mirrored."""
    for name in WHEEL:
        with Image.open(wheel(name)) as image:
            picture = image.convert("RGB")
        picture.thumbnail((SIDE, SIDE))
        w, h = picture.size
        middle = picture.crop((w // 8, h // 8, w - w // 8, h - h // 8))
        for kind, shown in (
            ("data", picture),
            ("data", middle),
            ("other", picture.transpose(Image.Transpose.ROTATE_90)),
        ):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True, exist_ok=True)
            shown.save(folder / f"{len(list(folder.iterdir()))}.png")
            if kind == "other":
                shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    return tmp_path


def test_photographs_find_their_middle_by_local_features(repository, folders, capsys):
    told = folders / "out.json"
    command = ["evaluate", f"folder:{folders / 'data'}", "--repository", str(repository)]
    command += ["--cache", str(folders / "cache"), "--methods", METHODS, "--json", str(told), "--regions", "1"]
    assert main(command) == 1
    assert "asmk:64 ranks by visual words: name a codebook with --codebook FILE" in capsys.readouterr().err
    assert main([*command, "--codebook-from", f"folder:{folders / 'other'}"]) == 0
    rows = {row["method"]: row for row in json.loads(told.read_text())["rows"]}
    assert list(rows) == METHODS.split(",")
    assert all(row["map"] > 0.8 for row in rows.values())
    plain = rows["none"]["index_bytes"]
    assert plain < rows["coattention:5"]["index_bytes"] < rows["spatial:5"]["index_bytes"]
    assert rows["asmk:64"]["index_bytes"] < plain
    assert "bytes per picture" in capsys.readouterr().out
