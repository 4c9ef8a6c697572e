"""The whole run on a system that needs no models: the tables, the JSON, the page, the plots."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from landseer.ops.errors import OpsError
from landseer.ops.evaluate import evaluating as evaluation
from landseer.ops.evaluate import plots
from landseer.ops.evaluate.database import Databases
from landseer.ops.evaluate.methods import rankings
from landseer.ops.evaluate.synthetic import synthetic
from landseer.ops.evaluate.system import About, Searched


class Painted:
    """Describes a picture by the colour of its first pixel, and noise that the name seeds."""

    def __init__(self, name="painted 1"):
        self.about = About(name=name, long_side=8, untrained=("lattqe",), notes=("read with care",))
        self.augmented = []

    def vector(self, path):
        with Image.open(path) as picture:
            colour = np.asarray(picture.convert("RGB"), np.float32)[0, 0]
        seed = int.from_bytes(f"{self.about.name}{path.stem}".encode(), "big")
        vector = np.concatenate([colour / 255, np.random.default_rng(seed).normal(size=5) * 0.4])
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def prepare(self, dataset, methods, console):
        return {shot.path: "torn" for shot in dataset.pictures() if shot.path.name.startswith("torn")}

    def ranker(self, dataset):
        references = np.stack([self.vector(path) for path in dataset.references])
        queries = np.stack([self.vector(query.shot.path) for query in dataset.queries])
        if dataset.synthetic:
            references = np.concatenate([references, synthetic(references, dataset.synthetic, seed=0)])

        own = dataset.own_rows()
        databases = Databases(references, own, attention=lambda: None, threads=1)

        def rank(method, begin):
            self.augmented += [what for what in [method.database] if what]
            database = databases.of(method.database, begin)
            found = list(rankings(method, queries, database, own, lattqe=lambda query, near: query))
            return Searched(orders=found, milliseconds=1.25, index_bytes=4.0 * references.shape[1])

        return rank


@pytest.fixture
def pictures(tmp_path):
    """Three classes of four pictures, one of another colour each; a broken one; names that HTML must not take."""
    colours = {"a": (255, 0, 0), "b&<b>": (0, 255, 0), "c": (200, 60, 0)}
    paint(tmp_path, colours)
    (tmp_path / "data" / "a" / "torn.png").write_bytes(b"x")
    return tmp_path / "data"


def paint(tmp_path, colours):
    """Paint four pictures of each class."""
    for number, (label, colour) in enumerate(colours.items()):
        (tmp_path / "data" / label).mkdir(parents=True)
        for place in range(4):
            shade = tuple(min(255, level + 20 * place) for level in colour)
            Image.new("RGB", (12, 9), shade).save(tmp_path / "data" / label / f"{number}{place}.png")


@pytest.fixture
def options(pictures, tmp_path):
    def make(**changes):
        defaults = {
            "data": f"folder:{pictures}",
            "methods": "none,aqe:1,alphaqe:3",
            "queries": None,
            "distractors": None,
            "repository": None,
            "backbones": (),
            "server": None,
            "cache": tmp_path / "cache",
            "seed": 0,
            "sweep": None,
            "json": None,
            "report": None,
        }
        return evaluation.EvaluationOptions(**{**defaults, **changes})

    return make


@pytest.fixture
def run(monkeypatch):
    def call(options, *systems):
        monkeypatch.setattr(evaluation, "_given", lambda options: list(systems or (Painted(),)))
        return evaluation.run(options, Console(stderr=True))

    return call


def test_the_table_fits_a_hundred_columns_and_has_a_row_for_each_system_and_method(run, options, capsys):
    run(options(sweep="1,2,4"), Painted("efficientnet_lite0 a-long-name-of-weights cider"), Painted("resnet50 gem"))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[1:])) <= 100
    assert "12 queries of 3 classes, 12 references" in " ".join(shown.split())
    # Three classes are too few for an interval over them.
    assert len(re.findall(r"aqe:1 +\d+\.\d +- +\d+\.\d to \d+\.\d +\d+\.\d +\d+\.\d *$", shown, re.M)) == 2
    assert len(re.findall(r"aqe:1 +[+-]\d+\.\d +- +[+-]\d+\.\d to [+-]\d+\.\d *$", shown, re.M)) == 2
    assert "3 classes: too few for an interval over classes, which needs 5" in " ".join(shown.split())
    assert shown.count("…") == 0
    assert "mAP by number of neighbours" in shown and "alphaqe, alpha 3" in shown
    assert "resnet50 gem: read with care" in shown


def test_json_holds_rows_sweep_and_regimes(run, options, tmp_path):
    told = tmp_path / "out.json"
    run(options(json=told, sweep="1,2", methods="aqe:1"))
    known = json.loads(told.read_text())
    [row] = known["rows"]
    assert row["method"] == "aqe:1" and len(row["aps"]) == 12
    assert row["gain"]["low"] <= row["gain"]["value"] <= row["gain"]["high"]
    assert {"value", "low", "high", "interval_over_classes"} == set(row["mp10"]) == set(row["recall_at_1"])
    assert row["interval_over_classes"] is None and row["interval"][0] <= row["map"] <= row["interval"][1]
    assert known["classes"] == [0] * 4 + [1] * 4 + [2] * 4
    assert known["intervals"]["interval_over_classes"].startswith("95%, bootstrap over classes")
    assert [(point["method"], point["neighbours"]) for point in known["sweep"]] == [("aqe", 1), ("aqe", 2)]
    assert known["sweep"][0]["map"] == row["map"] and known["sweep"][0]["base"] == pytest.approx(
        row["map"] - row["gain"]["value"]
    )
    assert {regime["by"] for regime in known["regimes"]} == {"positives", "ap"}
    assert [path.rsplit("/", 1)[1] for path in known["skipped"]] == ["torn.png"]
    assert known["systems"][0]["untrained"] == ["lattqe"]


def test_intervals_over_classes_stand_beside_those_over_queries(run, options, tmp_path, capsys):
    paint(tmp_path / "more", {name: (50 * number, 90, 0) for number, name in enumerate("abcde")})
    told, page = tmp_path / "out.json", tmp_path / "report" / "report.html"
    run(options(data=f"folder:{tmp_path / 'more'}", methods="aqe:1", json=told, report=page.parent))
    [row] = json.loads(told.read_text())["rows"]
    low, high = (f"{100 * end:.1f}" for end in row["interval_over_classes"])
    shown = capsys.readouterr().out
    assert f"{low} to {high}" in shown and "over queries" in shown and "too few" not in shown
    assert re.search(rf"<span>{low} to {high}</span></td><td class=\"soft\">\d", page.read_text())
    assert page.read_text().count("interval over queries</th>") == 4


def test_a_database_side_part_is_a_row_of_its_own(run, options, tmp_path, capsys):
    told, methods = tmp_path / "out.json", "alphadba:2:3,diffusion:3:2,alphadba:2:3+aqe:1,adba:1"
    painted = Painted()
    run(options(json=told, report=tmp_path / "report", sweep="1,2", methods=methods), painted)
    known = json.loads(told.read_text())
    assert [row["method"] for row in known["rows"]] == methods.split(",")
    assert all(row["gain"] is not None for row in known["rows"])
    # The number of the query's neighbours changes, what was done to the database does not.
    expected = [("alphadba:2:3+aqe", 1), ("alphadba:2:3+aqe", 2)]
    assert [(point["method"], point["neighbours"]) for point in known["sweep"]] == expected
    assert known["sweep"][0]["map"] == known["rows"][2]["map"]
    # Those of one database follow each other, so that it is augmented once.
    assert [str(recipe) for recipe in painted.augmented] == ["alphaqe:2:3"] * 3 + ["aqe:1"]
    shown = capsys.readouterr().out
    assert "alphadba:2:3+aqe:1" in shown and "diffusion:3:2" in shown


def test_the_default_rows_fit_a_hundred_columns(run, options, capsys):
    found = run(options(methods=None), Painted("efficientnet_lite0 a-long-name-of-weights cider"), Painted("resnet50"))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[1:])) <= 100 and "…" not in shown
    assert {str(row.method) for row in found.rows} >= {"none", "alphadba:10:3+alphaqe:10:3", "diffusion:50:10"}


def test_the_report_is_one_page_that_loads_nothing(run, options, tmp_path):
    methods = "none,aqe:1,alphaqe:3,lattqe:1"
    run(options(report=tmp_path / "deep" / "report", sweep="1,2", distractors="5", methods=methods))
    folder = tmp_path / "deep" / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["regimes.png", "report.html", "sweep.png"]
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|<script|url\(", page)
    assert "b&amp;&lt;b&gt;" in page and "<b>/" not in page
    assert "$" not in page
    assert page.count('<li class="failure">') == len(re.findall(r"<figcaption>query", page)) > 0
    assert page.count('class="plot"') == 2
    assert "5 distractors are synthetic" in page and "Never trained: lattqe" in page and "read with care" in page
    assert "1 picture could not be read" in page
    with Image.open(folder / "sweep.png") as picture:
        assert picture.width > 500
    # A report without a sweep leaves no plot of the one before.
    run(options(report=folder, methods="none"))
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    assert "Never trained" not in (folder / "report.html").read_text()


def test_synthetic_distractors_are_said_to_be_so_and_are_in_the_way(run, options, capsys):
    plain = run(options(methods="none"))
    crowded = run(options(methods="none", distractors="3000"))
    assert crowded.rows[0].figures.map < plain.rows[0].figures.map
    assert "3,000 synthetic distractors (not pictures)" in " ".join(capsys.readouterr().out.split())
    assert crowded.as_dict()["synthetic"] == 3000


def test_without_matplotlib_a_report_says_what_to_install(run, options, tmp_path, monkeypatch):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OpsError, match=r"--report draws with matplotlib.*pip install 'landseer\[train\]'"):
        run(options(report=tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_pairs_and_revisited_rank_by_all_their_protocols(run, options, pictures, tmp_path, capsys):
    import pickle

    photos = tmp_path / "jpg"
    photos.mkdir()
    stems = []
    for path in sorted(pictures.rglob("[012]?.png")):
        with Image.open(path) as picture:
            picture.convert("RGB").save(photos / f"{path.stem}.jpg")
        stems.append(path.stem)
    truth = {"bbx": [0, 0, 8, 8], "easy": [1], "hard": [2, 3], "junk": [0]}
    known = {"imlist": stems, "qimlist": [stems[0]], "gnd": [truth]}
    (tmp_path / "gnd_tiny.pkl").write_bytes(pickle.dumps(known))
    found = run(options(data=f"revisitop:{tmp_path},tiny", report=tmp_path / "report"))
    assert [row.protocol for row in found.rows[:3]] == ["easy", "medium", "hard"]
    assert re.search(r"protocol +mAP", capsys.readouterr().out)
    (tmp_path / "asked").mkdir()
    (photos / "00.jpg").rename(tmp_path / "asked" / "01.jpg")
    found = run(options(data=f"pairs:{tmp_path / 'asked'},{photos}"))
    assert len(found.dataset.queries) == 1 and found.rows[0].figures.aps.shape == (1,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep": "many"}, "--sweep is 'many'"),
        ({"distractors": "0"}, "--distractors is 0; expected a folder"),
        ({"distractors": "/nowhere"}, "/nowhere is not a folder"),
        ({"repository": "m", "server": "a:1"}, "--repository and --server both name what is evaluated"),
        ({"server": "a:1", "distractors": "9"}, "a service takes pictures; name a folder"),
        ({"json": "/nowhere/out.json"}, "there is no folder /nowhere"),
        ({"report": "/dev/null/report"}, "cannot make the folder --report /dev/null/report"),
        ({"methods": "none,dqe:65"}, "--methods has 'dqe:65'"),
        ({"methods": ""}, "--methods names ''"),
        ({"methods": "none,coattention", "distractors": "9"}, "which have no local features to rank by; name a folder"),
        ({"methods": "rasmk"}, "rasmk ranks by visual words: name a codebook with --codebook FILE"),
        ({"codebook": "a", "codebook_from": "folder:b"}, "--codebook and --codebook-from both name the visual words"),
        ({"methods": "aqe+aqe"}, "before `+` expected one of adba"),
        ({"server": "a:1", "methods": "ddba:65"}, "--methods has 'ddba:65', augmentation by dqe: got 65 neighbours"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(run, options, changes, said):
    from pathlib import Path

    paths = {name: Path(value) for name, value in changes.items() if name in ("json", "report", "repository")}
    with pytest.raises(OpsError, match=re.escape(said)) as error:
        run(options(**{**changes, **paths}))
    assert "\n" not in str(error.value)
