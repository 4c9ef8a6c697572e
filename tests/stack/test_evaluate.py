"""`landseer evaluate` on real photographs, by the exported models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from stack.photos import WHEEL, wheel

from landseer.client.cli import main

pytestmark = pytest.mark.stack


@pytest.fixture
def data(tmp_path):
    """A class for each photograph: it, and its middle, darker; and a file that is no picture."""
    for name in WHEEL:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        with Image.open(wheel(name)) as image:
            picture = image.convert("RGB")
        picture.thumbnail((320, 320))
        picture.save(folder / "whole.png")
        w, h = picture.size
        middle = picture.crop((w // 6, h // 6, w - w // 6, h - h // 6))
        middle.point([int(0.7 * level) for level in range(256)] * 3).save(folder / "middle.jpg", quality=80)
    (tmp_path / "data" / WHEEL[0] / "broken.jpg").write_bytes(b"no picture")
    return tmp_path / "data"


def test_photographs_find_their_darker_middle(repository, data, tmp_path, capsys):
    told = tmp_path / "out.json"
    command = ["evaluate", f"folder:{data}", "--repository", str(repository), "--cache", str(tmp_path / "cache")]
    command += ["--methods", "none,aqe:1,alphaqe:2,dqe:1,rank-curve,lattqe:2", "--json", str(told)]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert f"{2 * len(WHEEL)} queries of {len(WHEEL)} classes, {2 * len(WHEEL)} references" in shown.out
    assert "broken.jpg: got bytes that are not a picture" in " ".join(shown.err.split())
    known = json.loads(told.read_text())
    assert [row["method"] for row in known["rows"]] == [
        "none",
        "aqe:1",
        "alphaqe:2:3",
        "dqe:1",
        "rank-curve:8",
        "lattqe:2",
    ]
    assert [path.rsplit("/", 1)[1] for path in known["skipped"]] == ["broken.jpg"]
    assert known["rows"][0]["map"] > 0.9
    assert known["rows"][0]["map"] == pytest.approx(np.mean(known["rows"][0]["aps"]))
    # All vectors are known now: the same figures, without the graph.
    assert main(command) == 0
    assert untimed(json.loads(told.read_text())) == untimed(known)


def untimed(known):
    """What is the same each time."""
    return known | {"rows": [row | {"milliseconds": 0} for row in known["rows"]]}


def test_with_nothing_left_to_find_one_line_says_so(repository, tmp_path, capsys):
    for name in ("a/1.jpg", "a/2.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"no picture")
    command = ["evaluate", f"folder:{tmp_path / 'data'}", "--repository", str(repository)]
    assert main([*command, "--cache", str(tmp_path / "cache")]) == 1
    assert "no query has a right answer among the readable pictures" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command, "--json", str(tmp_path / "gone" / "out.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_what_is_not_there_is_one_line(repository, tmp_path, capsys):
    for command, said in (
        (["evaluate", "folder:/nowhere"], "landseer evaluate: /nowhere is not a folder"),
        (["evaluate", "folder:/", "--methods", "best"], "landseer evaluate: --methods names 'best'"),
        (["evaluate", "folder:/", "--repository", str(tmp_path)], "manifest.json cannot be read; run: python export"),
    ):
        more = [] if "--repository" in command else ["--repository", str(repository)]
        assert main([*command, *more]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
