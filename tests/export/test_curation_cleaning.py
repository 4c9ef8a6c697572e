from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from planted import iou, plant, save, texture, things
from shared_files import shared

from landseer.export.curation import matcher as module
from landseer.export.curation.cleaning import clean, pairs_in
from landseer.export.curation.errors import CurationError
from landseer.export.curation.matcher import matcher
from landseer.export.curation.settings import MatchSettings
from landseer.export.datasets.photograph import Photograph

SEEN, OTHER = 7, 3


def make_class(folder, seed=0):
    """Return photographs of a class, and the boxes of those that belong: seven of one thing, two of another, noise."""
    rng = np.random.default_rng(seed)
    coffee, cat = things()[2], things()[1]
    truths = {}
    for number in range(SEEN):
        planted = plant(coffee, rng, turn=10)
        truths[save(planted.pixels, folder / f"{number}.png")] = planted.box
    outliers = [plant(cat, rng, turn=10).pixels, plant(cat, rng, turn=10).pixels, texture(rng)]
    others = [save(pixels, folder / f"x{number}.png") for number, pixels in enumerate(outliers)]
    # Not in an order that gives the answer away.
    paths = [others[0], *truths, *others[1:]]
    return [Photograph(path=path, label="thing") for path in paths], truths


@pytest.fixture(scope="module")
def planted_class(tmp_path_factory):
    return make_class(tmp_path_factory.mktemp("class"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A file in which tests find what others matched."""
    return tmp_path_factory.mktemp("kept") / "matches.sqlite"


def test_a_class_loses_exactly_its_outliers_and_boxes_lie_on_the_thing(planted_class, kept):
    photographs, truths = planted_class
    ticks = []
    with matcher(kept, MatchSettings(), workers=2) as pairs:
        result = clean("thing", photographs, pairs, progress=lambda: ticks.append(1))
    assert [one.path for one in result.kept] == list(truths)
    assert {one.path.stem for one in result.removed} == {"x0", "x1", "x2"}
    assert not result.unreadable
    assert len(ticks) == pairs_in(len(photographs))
    for one in result.kept:
        [box] = one.boxes
        assert iou(box, truths[one.path]) > 0.65


def test_too_few_that_hang_together_are_no_class(planted_class, kept):
    photographs, _ = planted_class
    with matcher(kept, MatchSettings(), workers=1) as pairs:
        result = clean("thing", photographs, pairs, least=SEEN + 1)
        assert not result.kept
        assert len(result.removed) == len(photographs)
        assert not clean("thing", photographs[:1], pairs, least=1).kept
        assert clean("thing", [], pairs).kept == ()


def test_what_was_matched_is_not_matched_again(planted_class, kept, monkeypatch):
    photographs, _ = planted_class
    with matcher(kept, MatchSettings(), workers=2) as pairs:
        first = clean("thing", photographs, pairs)

    def fails(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "extract", fails)
    monkeypatch.setattr(module, "verify", fails)
    with matcher(kept, MatchSettings(), workers=1) as pairs:
        assert clean("thing", photographs, pairs) == first
    with matcher(kept, MatchSettings(inliers=13), workers=1) as pairs, pytest.raises(AssertionError):
        # Other thresholds, other matches; the keypoints are those of before.
        clean("thing", photographs, pairs)


def test_the_number_of_workers_changes_nothing(planted_class, tmp_path):
    photographs, _ = planted_class
    results = []
    for workers in (1, 3):
        with matcher(tmp_path / f"{workers}.sqlite", MatchSettings(), workers=workers) as pairs:
            results.append(clean("thing", photographs[:5], pairs))
    assert results[0] == results[1]


def test_pictures_that_cannot_be_read_are_told_and_left_out(planted_class, kept, tmp_path):
    photographs, truths = planted_class
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad = [Photograph(path=tmp_path / name, label="thing") for name in ("broken.png", "gone.png")]
    with matcher(kept, MatchSettings(), workers=1) as pairs:
        result = clean("thing", [bad[0], *photographs, bad[1]], pairs)
        assert {path.name for path in pairs.unreadable} == {"broken.png", "gone.png"}
        assert pairs.unreadable[tmp_path / "gone.png"] == "No such file or directory"
    assert list(result.unreadable) == bad
    assert [one.path for one in result.kept] == list(truths)


def test_a_picture_changed_in_place_is_looked_at_again(tmp_path):
    path = save(things()[0], tmp_path / "a.png")
    with matcher(tmp_path / "m.sqlite", MatchSettings(), workers=1) as pairs:
        pairs.prepare([path])
        assert pairs.size(path) == (180, 180)
    save(texture(np.random.default_rng(0)), path)
    with matcher(tmp_path / "m.sqlite", MatchSettings(), workers=1) as pairs:
        pairs.prepare([path])
        assert pairs.size(path) == (420, 360)


@pytest.mark.parametrize("place", ["file", "folder/matches", "file/below"])
def test_a_cache_that_is_none_is_one_line(tmp_path, place):
    (tmp_path / "file").write_text("no database at all, but long enough to be looked at")
    (tmp_path / "folder" / "matches").mkdir(parents=True)
    with (
        pytest.raises(CurationError, match="name another file: --cache"),
        matcher(tmp_path / place, MatchSettings(), workers=1),
    ):
        pass


KILLED = """
import sys
from pathlib import Path
from landseer.export.curation.cleaning import clean
from landseer.export.curation.matcher import matcher
from landseer.export.curation.settings import MatchSettings
from landseer.export.datasets.photograph import Photograph
from landseer.export.curation import matcher as module
module.CHUNK = 1
photographs = [Photograph(path=Path(path), label="thing") for path in sys.argv[2:]]
with matcher(Path(sys.argv[1]), MatchSettings(), workers=1) as pairs:
    clean("thing", photographs, pairs, progress=lambda: print("pair", flush=True))
"""


def test_a_run_that_was_killed_goes_on(planted_class, kept, tmp_path, monkeypatch):
    photographs, _ = planted_class
    cache = tmp_path / "matches.sqlite"
    command = [sys.executable, "-c", KILLED, cache, *(one.path for one in photographs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(10):
            assert process.stdout.readline() == "pair\n"
        process.kill()
    assert process.returncode == -9
    done = []
    real = module.verify
    monkeypatch.setattr(module, "verify", lambda *given: done.append(1) or real(*given))
    with matcher(cache, MatchSettings(), workers=2) as pairs:
        result = clean("thing", photographs, pairs)
    assert len(done) <= pairs_in(len(photographs)) - 10
    with matcher(kept, MatchSettings(), workers=2) as pairs:
        assert clean("thing", photographs, pairs) == result


def test_real_products_stay_and_fruit_among_them_goes(tmp_path):
    folder = shared("data/grocery/train")
    juice = sorted((folder / "Packages/Juice/God-Morgon-Orange-Juice").iterdir())[:8]
    fruit = sorted((folder / "Fruit/Banana").iterdir())[:2]
    photographs = [Photograph(path=path, label="juice") for path in (*fruit, *juice)]
    with matcher(tmp_path / "m.sqlite", MatchSettings(), workers=2) as pairs:
        result = clean("juice", photographs, pairs)
    assert {one.path for one in result.removed} >= set(fruit)
    assert len(result.kept) >= 6
