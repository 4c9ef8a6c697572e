from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from planted import plant, save, texture, things
from rich.console import Console

from landseer.client import cli
from landseer.export.curation.settings import MatchSettings
from landseer.export.datasets.readers import read
from landseer.ops.curate import overlap
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.describe import Described
from landseer.ops.files import check_writable, named_from

CLI = [sys.executable, "-m", "landseer.client.cli"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes: cups, four of one thing and one of nothing; noise, of which nothing stays."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(4):
        save(plant(things()[2], rng, turn=10).pixels, folder / "cups" / f"{number}.png")
    for name in ("cups/odd.png", "noise/a.png", "noise/b.png"):
        save(texture(rng), folder / name)
    (folder / "noise" / "broken.png").write_bytes(b"no picture")
    return folder


def run(*arguments) -> int:
    return cli.main(["data", *map(str, arguments)])


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_clean_writes_lists_that_can_be_read(data, tmp_path, capsys):
    out, boxes, counts = data / "kept.csv", tmp_path / "boxes.csv", tmp_path / "counts.csv"
    options = ("--out", out, "--boxes", boxes, "--summary", counts, "--cache", tmp_path / "m.sqlite")
    assert run("clean", f"folder:{data}", *options) == 0
    assert rows(out) == [["path", "class"], *([f"cups/{number}.png", "cups"] for number in range(4))]
    assert rows(counts) == [
        ["class", "pictures", "kept", "removed", "unreadable", "pairs"],
        ["cups", "5", "4", "1", "0", "6"],
        ["noise", "3", "0", "2", "1", "0"],
    ]
    head, *kept = rows(boxes)
    assert head == ["path", "class", "x0", "y0", "x1", "y1"]
    assert [Path(row[0]) for row in kept] == [data / "cups" / f"{number}.png" for number in range(4)]
    for row in kept:
        x0, y0, x1, y1 = map(float, row[2:])
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
    # The written list is a data set of the same pictures.
    assert [one.path for one in read(f"csv:{out}").photographs] == [data / row[0] for row in rows(out)[1:]]
    again = read(f"csv:{boxes}").photographs
    assert [one.path for one in again] == [Path(row[0]) for row in kept]
    sides = [[str(side) for side in (box.x0, box.y0, box.x1, box.y1)] for one in again for box in one.boxes]
    assert sides == [[str(float(side)) for side in row[2:]] for row in kept]
    told = capsys.readouterr()
    assert f"folder:{data}: 2 classes, 1 of them removed entirely" in told.out
    assert "broken.png" in told.err


def test_the_first_classes_alone(data, tmp_path):
    counts = tmp_path / "counts.csv"
    options = ("--out", tmp_path / "o.csv", "--summary", counts, "--cache", tmp_path / "m.sqlite", "--classes", "1")
    assert run("clean", f"folder:{data}", *options) == 0
    assert [row[0] for row in rows(counts)[1:]] == ["cups"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("clean", "zip:x", "--out", "{}/o.csv"), "cannot read 'zip:x' as a data set"),
        (("clean", "folder:{}/none", "--out", "{}/o.csv"), "not a folder"),
        (("clean", "folder:{}", "--out", "{}/none/o.csv"), "cannot write --out"),
        (("clean", "folder:{}", "--out", "{}/o.csv", "--boxes", "{}"), "is a folder; name another file"),
        (("clean", "folder:{}", "--out", "{}/o.csv", "--inliers", "3"), "cannot match with inliers = 3; expected"),
        (("clean", "folder:{}", "--out", "{}/o.csv", "--cache", "{}/text"), "name another file: --cache"),
        (("clean", "folder:{}/noise", "--out", "{}/o.csv", "--cache", "{}/m"), "no class has 3 pictures"),
        (
            ("overlap", "folder:{}", "folder:{}", "--out", "{}/o", "--sheet", "{}/s", "--repository", "{}/none"),
            "cannot be read; run: python export/all.py",
        ),
    ],
)
def test_what_cannot_be_done_is_said(data, tmp_path, capsys, arguments, line):
    for name in ("noise/a.png", "noise/b.png"):
        save(texture(np.random.default_rng(0), (64, 48)) if "a" in name else things()[0], tmp_path / name)
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at")
    assert run(*(part.format(tmp_path) for part in arguments)) == 1
    told = capsys.readouterr().err
    assert line in told
    assert told.splitlines()[-1].startswith(f"landseer data {arguments[0]}: ") or "expected one of" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("arguments", [(), ("clean",), ("clean", "folder:x"), ("overlap", "a", "b"), ("tidy",)])
def test_a_wrong_command_line_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("tool", ["clean", "overlap"])
def test_help_names_every_kind_of_data(capsys, tool):
    with pytest.raises(SystemExit) as left:
        run(tool, "--help")
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "gld:CSV" in shown and "--cache FILE" in shown and "interrupt it at any time" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_ctrl_c_says_how_to_go_on(data, tmp_path):
    rng = np.random.default_rng(1)
    for number in range(25):
        save(plant(things()[3], rng).pixels, tmp_path / "many" / f"{number}.png")
    cache = tmp_path / "m.sqlite"
    command = [*CLI, "data", "clean", f"folder:{tmp_path / 'many'}", "--out", tmp_path / "o.csv", "--cache", cache]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        wal = Path(f"{cache}-wal")
        while process.poll() is None and not (wal.exists() and wal.stat().st_size > 200_000):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"finished work is kept in {cache}; run the same command again to resume" in told
    assert "Traceback" not in told
    assert not (tmp_path / "o.csv").exists()


def described(vectors):
    return lambda shots: Described(
        vectors={shot: vectors[shot.path.stem] for shot in shots if shot.path.stem in vectors},
        unreadable={shot.path: "it is broken" for shot in shots if shot.path.stem not in vectors},
    )


def options(data, queries, tmp_path, **kind):
    return overlap.OverlapOptions(
        training=f"folder:{data}", queries=queries, out=tmp_path / "removed.txt", sheet=tmp_path / "sheet.html",
        evidence=tmp_path / "evidence.csv", top=3, settings=MatchSettings(), workers=2, cache=tmp_path / "m.sqlite",
        repository=tmp_path, vectors=tmp_path / "v.sqlite", **kind,
    )  # fmt: skip


def test_overlap_lists_the_classes_and_shows_why(data, tmp_path, capsys):
    asked = save(plant(things()[2], np.random.default_rng(9), turn=10).pixels, tmp_path / "asked" / "query.png")
    near, far = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    vectors = {"query": near, **dict.fromkeys(("0", "1", "2"), near), **dict.fromkeys(("3", "odd", "a", "b"), far)}
    given = options(data, f"folder:{asked.parent}", tmp_path)
    overlap.list_overlap(given, Console(stderr=True), describe=described(vectors))
    assert given.out.read_text() == "cups\n"
    assert given.sheet.read_text().count("<svg") == 3
    assert [row[:2] for row in rows(given.evidence)[1:]] == [["cups", "asked/query.png"]] * 3
    told = capsys.readouterr()
    assert "1 class of 2 show the thing of a query, with 5 pictures" in told.out
    assert "broken.png: it is broken" in told.err
    with pytest.raises(OpsError, match="has no readable picture"):
        overlap.list_overlap(given, Console(stderr=True), describe=described({}))


def test_a_query_is_described_by_its_box(tmp_path):
    from landseer.export.datasets.photograph import Box, Photograph

    path = save(texture(np.random.default_rng(0), (200, 100)), tmp_path / "a.png")
    box = Box(x0=0.1, y0=0.2, x1=0.6, y1=1.0)
    region = overlap._shot(Photograph(path=path, label="a", boxes=(box,))).region
    assert region is not None
    np.testing.assert_allclose([region.x, region.y, region.width, region.height], [20, 20, 100, 80])
    assert overlap._shot(Photograph(path=path, label="a")).region is None
    assert overlap._shot(Photograph(path=path, label="a", boxes=(box, box))).region is None
    assert overlap._shot(Photograph(path=tmp_path / "gone.png", label="a", boxes=(box,))).region is None


def test_paths_count_from_the_list_where_they_can(tmp_path):
    from landseer.export.datasets.photograph import Photograph

    below = Photograph(path=tmp_path / "a" / "b.png", label="a")
    assert named_from(tmp_path / "list.csv", below) == "a/b.png"
    assert named_from(tmp_path / "a" / "c" / "list.csv", below) == str(tmp_path / "a" / "b.png")
    check_writable(None, "--out")
    check_writable(tmp_path / "new.csv", "--out")
