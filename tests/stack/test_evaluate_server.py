"""`landseer evaluate --server` against a real service, and the same in process."""

from __future__ import annotations

import itertools
import json
import pickle

import pytest
from PIL import Image
from stack.photos import strips

from landseer.client.cli import main
from landseer.ops.run.ports import LOOPBACK, free_port

pytestmark = pytest.mark.stack
METHODS = "none,aqe:1,aqewd:3,aqewd-dir:2,alphaqe:2,dqe:2,rank-curve:3,lattqe:2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six parts of photographs, each in a folder with a darker and a mirrored copy; a file that is no picture."""
    folder = tmp_path_factory.mktemp("served") / "data"
    for number, strip in enumerate(strips(6)):
        place = folder / f"class{number}"
        place.mkdir(parents=True)
        (place / "plain.png").write_bytes(strip)
        with Image.open(place / "plain.png") as picture:
            picture.point([int(0.6 * level) for level in range(256)] * 3).save(place / "darker.png")
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "turned.png")
    (folder / "class0" / "broken.jpg").write_bytes(b"no picture")
    return folder


def rows(told):
    return [(row["method"], row["map"], row["mp10"]["value"], row["aps"]) for row in told["rows"]]


def test_figures_are_those_in_process(repository, data, another, tmp_path, capsys):
    _, service = another(tmp_path / "store")
    told = tmp_path / "told.json"
    command = ["evaluate", f"folder:{data}", "--methods", METHODS, "--json", str(told)]
    assert main([*command, "--repository", str(repository), "--cache", str(tmp_path / "cache")]) == 0
    local = json.loads(told.read_text())
    capsys.readouterr()
    report = tmp_path / "report"
    assert main([*command, "--server", service.address, "--report", str(report)]) == 0
    served = json.loads(told.read_text())
    shown = capsys.readouterr()
    assert "18 pictures indexed" in " ".join(shown.err.split())
    assert "broken.jpg" in shown.err and len(served["skipped"]) == len(local["skipped"]) == 1
    assert (report / "report.html").exists()
    for found, expected in zip(rows(served), rows(local), strict=True):
        assert found[0] == expected[0]
        assert found[1:3] == pytest.approx(expected[1:3], abs=1e-6), found[0]
        assert found[3] == pytest.approx(expected[3], abs=1e-6), found[0]
    assert served["systems"][0]["server"] == service.address

    # What is there is used; what else is there is in the way, and said to be.
    service.put({"elsewhere": data / "class1" / "plain.png"})
    assert main([*command, "--methods", "none", "--server", service.address]) == 0
    crowded, shown = json.loads(told.read_text()), capsys.readouterr()
    assert "0 pictures indexed" in " ".join(shown.err.split()) and "18 already there" in " ".join(shown.err.split())
    assert "the service also searches 1 other picture" in " ".join(shown.out.split())
    assert crowded["rows"][0]["map"] < local["rows"][0]["map"]


def test_queries_that_are_no_references_are_sent_with_their_pictures(data, another, tmp_path, capsys):
    _, service = another(tmp_path / "store")
    asked = tmp_path / "asked"
    asked.mkdir()
    for number in range(3):
        (asked / f"{number}.png").write_bytes((data / f"class{number}" / "darker.png").read_bytes())
    (asked / "5.png").write_bytes(b"no picture")
    known = tmp_path / "known"
    known.mkdir()
    for number in range(6):
        (known / f"{number}.png").write_bytes((data / f"class{number}" / "plain.png").read_bytes())
    told = tmp_path / "told.json"
    command = ["evaluate", f"pairs:{asked},{known}", "--methods", "none,aqe:1", "--json", str(told)]
    assert main([*command, "--server", service.address]) == 0
    found = json.loads(told.read_text())
    assert len(found["queries"]) == 3 and found["rows"][0]["map"] == 1.0
    assert "5.png: got bytes that are not a picture" in " ".join(capsys.readouterr().err.split())


def test_regions_of_revisited_queries_are_searched_for_alike(repository, data, another, tmp_path):
    _, service = another(tmp_path / "store")
    photos = tmp_path / "jpg"
    photos.mkdir()
    for number, name in itertools.product(range(4), ("plain", "darker", "turned")):
        with Image.open(data / f"class{number}" / f"{name}.png") as picture:
            picture.save(photos / f"{name}{number}.jpg", quality=90)
    known = [f"{name}{number}" for number in range(4) for name in ("plain", "turned")]
    truths = [
        {
            "bbx": [40.0, 5.5, 300.0, 60.0],
            "easy": [2 * number],
            "hard": [2 * number + 1],
            "junk": [(2 * number + 2) % 8],
        }
        for number in range(4)
    ]
    truth = {"imlist": known, "qimlist": [f"darker{number}" for number in range(4)], "gnd": truths}
    (tmp_path / "gnd_tiny.pkl").write_bytes(pickle.dumps(truth))
    told = tmp_path / "told.json"
    command = ["evaluate", f"revisitop:{tmp_path},tiny", "--methods", "none,alphaqe:2", "--json", str(told)]
    assert main([*command, "--repository", str(repository), "--cache", str(tmp_path / "cache")]) == 0
    local = json.loads(told.read_text())
    assert main([*command, "--server", service.address]) == 0
    assert rows(json.loads(told.read_text())) == rows(local)
    assert [row["protocol"] for row in local["rows"]] == ["easy", "medium", "hard"] * 2


def test_what_is_no_service_is_one_line(triton, data, capsys):
    for server, said in (
        (f"{LOOPBACK}:{free_port()}", "no Landseer server answers at"),
        (triton.server.grpc_url, "answers, but not as this version's Landseer server"),
        ("nowhere", "--server is 'nowhere'; expected HOST:PORT"),
    ):
        assert main(["evaluate", f"folder:{data}", "--server", server]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
