"""The real command on real servers: index, search, stats, get, delete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from stack.photos import encoded, pixels_of, strips, wheel

pytestmark = pytest.mark.stack

COMMAND = Path(sys.executable).with_name("landseer")


@pytest.fixture
def run(landseer, tmp_path):
    """Runs `landseer ...` in a folder of its own; the server is told by the environment."""

    def call(*words, status=0, server=landseer.address):
        environment = {"PATH": "/usr/bin:/bin", "LANDSEER_SERVER": server, "HOME": str(tmp_path)}
        ended = subprocess.run(
            [COMMAND, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    return call


@pytest.fixture
def folder(tmp_path):
    """Photographs in a folder, in a folder within it, one broken, and a file that is none."""
    inner = tmp_path / "shop" / "inner"
    inner.mkdir(parents=True)
    Image.fromarray(pixels_of(wheel("coffee.png"))).save(tmp_path / "shop" / "coffee.jpg", quality=90)
    Image.fromarray(pixels_of(wheel("chelsea.png"))).save(inner / "chelsea & friends.png")
    for number, image in enumerate(strips(3)):
        (inner / f"strip{number}.png").write_bytes(image)
    (tmp_path / "shop" / "broken.jpg").write_bytes(b"\xff\xd8\xff not much of a picture")
    (tmp_path / "shop" / "notes.txt").write_text("no picture")
    return tmp_path / "shop"


def test_a_life_of_pictures(run, folder):
    indexed = json.loads(run("index", "shop", "--metadata", "shelf=7", "--json", status=1).stdout)
    assert (indexed["found"], indexed["indexed"], indexed["error"]) == (6, 5, None)
    [failed] = indexed["failed"]
    assert (failed["id"], failed["code"]) == ("shop/broken.jpg", "INVALID_ARGUMENT")
    (folder / "broken.jpg").unlink()
    again = run("index", "shop", "--skip-indexed").stdout
    assert "indexed 0 of 5 pictures" in again and "5 already indexed" in again

    query = folder.parent / "query.png"
    query.write_bytes(encoded(pixels_of(wheel("coffee.png"))[40:360, 60:540]))
    answer = json.loads(run("search", query, "--json", "--top-k", "3", "--rerank", "coattention").stdout)
    assert len(answer["hits"]) == 3
    best = {hit["id"] for hit in answer["hits"]}
    assert "shop/coffee.jpg" in best
    assert answer["hits"][0]["scores"].keys() >= {"global", "coattention"}
    assert {"decode", "describe", "search", "rerank", "total"} <= {timing["stage"] for timing in answer["timings"]}
    assert {"name": "backbone", "version": "1"} in answer["model_versions"]
    table = run("search", query, "--box", "100,60,300,200").stdout
    assert "shop/coffee.jpg" in table and "searched" in table

    run("search", query, "--html", "hits.html", "--rerank", "coattention", "--box", "0,0,480,320")
    page = (folder.parent / "hits.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3, "thumbnails of the hits"
    assert "where co-attention looked" in page and "Localisation attention" in page
    assert "shop/coffee.jpg" in page and "http" not in page.partition("<body")[2].partition("<footer")[0]

    stats = json.loads(run("stats", "--json").stdout)
    assert stats["pictures"] >= 5 and stats["backbone"] == "efficientnet_lite0_instance" and stats["long_side"] == 640
    assert "efficientnet_lite0" in run("stats").stdout

    found = json.loads(run("get", "shop/inner/chelsea & friends.png", "--json", "--vectors").stdout)
    assert found["metadata"].pop("file_version")
    assert found["metadata"] == {"path": str(folder / "inner" / "chelsea & friends.png"), "shelf": "7"}
    assert (found["width"], found["height"]) == (451, 300)
    assert len(found["descriptor"]) == stats["descriptor_size"]
    assert "451 by 300 px" in run("get", "shop/inner/chelsea & friends.png").stdout

    ids = [f"shop/inner/strip{number}.png" for number in range(3)]
    everything = ["shop/coffee.jpg", "shop/inner/chelsea & friends.png", *ids]
    assert json.loads(run("delete", *everything, "--json").stdout) == {"deleted": everything, "not_indexed": []}
    assert "not indexed: shop/coffee.jpg" in run("delete", "shop/coffee.jpg", status=1).stdout
    assert "shop/" not in run("search", query, "--top-k", "1000").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search", "missing.jpg"], "there is no file missing.jpg"),
        (["search", "notes.txt"], "image: got bytes that are not a picture"),
        (["search", "coffee.jpg", "--box", "9000,0,10,10"], "region: "),
        (["search", "coffee.jpg", "--top-k", "100000"], "top_k: got 100000"),
        (["search", "coffee.jpg", "--expansion", "rank-curve", "--neighbours", "65"], "expansion.neighbours: got 65"),
        (["search", "--id", "nothing/of/that/name"], "no picture with id"),
        (["get", "nothing/of/that/name"], "no picture with id"),
        (["index", "not-there"], "not-there"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run, folder, words, said):
    (folder.parent / "notes.txt").write_text("no picture")
    (folder.parent / "coffee.jpg").write_bytes((folder / "coffee.jpg").read_bytes())
    ended = run(*words, status=1)
    assert said in ended.stderr and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith(f"landseer {words[0]}: ")


def test_a_server_that_is_not_there(run):
    ended = run("stats", status=1, server="127.0.0.1:9")
    assert ended.stderr.count("\n") == 1
    assert "no Landseer server answers at 127.0.0.1:9" in ended.stderr and "landseer up" in ended.stderr
