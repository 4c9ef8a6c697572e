"""The baseline against the script that it stands for, written plainly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from landseer.ops.errors import OpsError
from landseer.ops.evaluate import evaluating as evaluation
from landseer.ops.evaluate.methods import Method
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.sift import MOST, SiftKeypoints, keypoints
from landseer.ops.evaluate.sift_search import SiftSearch, matches
from landseer.ops.evaluate.sift_system import SiftSystem
from landseer.ops.evaluate.system import About, Searched

CONSOLE = Console(stderr=True)
SIFT = Method(name="sift")
NOTHING = SiftKeypoints(descriptors=np.empty((0, 128), np.uint8), positions=np.empty((0, 2), np.float32))


def texture(seed, side=240):
    """Return RGB pixels [side, side, 3] with blobs of several sizes."""
    draws = np.random.default_rng(seed)
    layers = [cv2.resize(draws.uniform(0, 255, (side // size,) * 2), (side, side)) for size in (4, 8, 16, 32)]
    return np.repeat(np.mean(layers, axis=0).astype(np.uint8)[..., None], 3, axis=2)


def seen(pixels, seed, side=240):
    """Return a picture from an angle, with noise."""
    draws = np.random.default_rng(seed)
    corners = np.float32([[0, 0], [side, 0], [side, side], [0, side]])
    moved = corners * 0.8 + draws.uniform(0, 0.15 * side, (4, 2)).astype(np.float32)
    view = cv2.warpPerspective(pixels, cv2.getPerspectiveTransform(corners, moved), (side, side))
    return np.clip(view + draws.normal(0, 6, view.shape), 0, 255).astype(np.uint8)


def script(query, references):
    """What people would write: the inliers and the matches of each reference."""
    found = []
    for one in references:
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(query.rooted(), one.rooted(), k=2)
        good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance]
        inliers = 0
        if len(good) >= 4:
            asked = np.float32([query.positions[match.queryIdx] for match in good])
            known = np.float32([one.positions[match.trainIdx] for match in good])
            _, mask = cv2.findHomography(asked, known, cv2.RANSAC, 5.0)
            inliers = 0 if mask is None else int(mask.sum())
        found.append((inliers, len(good)))
    return found


def test_scores_are_those_of_the_script():
    textures = [texture(seed) for seed in range(6)]
    references, query = [keypoints(one) for one in textures], keypoints(seen(textures[3], 9))
    assert 100 < len(query.positions) <= MOST + 1
    scores = SiftSearch(references, threads=2).scores(query)
    expected = script(query, references)
    assert np.floor(scores).astype(int).tolist() == [inliers for inliers, _ in expected]
    counts = np.rint((scores % 1) * (1 + len(query.positions))).astype(int)
    assert counts.tolist() == [count for _, count in expected]
    assert scores.argmax() == 3 and scores[3] > 30


def test_the_ratio_test_is_of_distances():
    # Two-dimensional unit vectors: angles to the query of 10 and 12, 10 and 13, 10 and 10 degrees.
    rows = np.cos(np.deg2rad([[10.0, 12.0], [10.0, 13.0], [10.0, 10.0]])).astype(np.float32)
    asked, found = matches(rows)
    assert (asked.tolist(), found.tolist()) == ([1], [0])
    for empty in (np.empty((0, 5)), np.empty((5, 0)), np.ones((5, 1))):
        assert [len(one) for one in matches(empty.astype(np.float32))] == [0, 0]


def test_a_picture_without_keypoints_scores_nothing():
    flat, some = keypoints(np.full((64, 64, 3), 128, np.uint8)), keypoints(texture(0))
    assert flat.descriptors.shape == (0, 128) and flat.positions.shape == (0, 2)
    assert SiftSearch([flat, some], threads=1).scores(flat).tolist() == [0.0, 0.0]
    scores = SiftSearch([some, flat, NOTHING, NOTHING, NOTHING, some], threads=1).scores(some)
    assert scores[1:5].tolist() == [0.0] * 4 and scores[0] == scores[5] >= len(some.positions) // 2


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Six references, a view of each as a query, two other pictures, and a file that is none."""
    for number in range(6):
        save(texture(number), tmp_path / "known" / f"{number}.png")
        save(seen(texture(number), number), tmp_path / "asked" / f"{number}.png")
    for number in range(2):
        save(texture(50 + number), tmp_path / "more" / f"other{number}.png")
    (tmp_path / "asked" / "5.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def options(pictures):
    def make(**changes):
        defaults = {
            "data": f"pairs:{pictures / 'asked'},{pictures / 'known'}",
            "methods": "sift",
            "queries": None,
            "distractors": None,
            "repository": None,
            "backbones": (),
            "server": None,
            "cache": pictures / "cache",
            "seed": 0,
            "sweep": None,
            "json": None,
            "report": None,
        }
        return evaluation.EvaluationOptions(**{**defaults, **changes})

    return make


def test_it_needs_nothing_but_the_pictures(options, capsys):
    [row] = evaluation.run(options(), CONSOLE).rows
    assert row.figures.map == 1.0 and row.gain is None
    # A keypoint is 128 values of a byte, and two numbers in single precision.
    assert row.milliseconds > 0 and 100 * 136 < row.index_bytes <= (MOST + 1) * 136
    shown = capsys.readouterr()
    assert "RootSIFT, 640 px" in shown.out and "gain" not in shown.out
    assert "5.png" in shown.err


def test_distractors_are_searched_too_and_must_be_pictures(options, pictures):
    found = evaluation.run(options(distractors=str(pictures / "more")), CONSOLE)
    assert len(found.dataset.references) == 8 and found.dataset.distractors == 2 and found.rows[0].figures.map == 1.0
    with pytest.raises(OpsError, match="makes vectors, which have no local features to rank by"):
        evaluation.run(options(distractors="9"), CONSOLE)
    with pytest.raises(OpsError, match="makes vectors, which have no local features to rank by"):
        evaluation.run(options(distractors="9", methods="default"), CONSOLE)


def test_turned_queries_are_found_too(options, capsys):
    [row] = evaluation.run(options(turn=90), CONSOLE).rows
    assert row.figures.map == 1.0
    assert "5 queries of 5 classes, turned by 90 degrees" in " ".join(capsys.readouterr().out.split())


class Backwards:
    """Ranks the last reference first, and says what it was asked."""

    def __init__(self, name):
        self.about, self.asked, self.prepared = About(name=name, long_side=8), [], []

    def prepare(self, dataset, methods, console):
        self.prepared = [method.name for method in methods]
        return {}

    def ranker(self, dataset):
        def rank(method, begin):
            self.asked.append(method.name)
            return Searched(orders=[np.arange(len(dataset.references))[::-1] for _ in dataset.queries])

        return rank


def test_beside_systems_it_is_a_row_of_their_tables_and_matches_once(options, monkeypatch, capsys):
    systems, matched = [Backwards("one"), Backwards("two")], []
    scores = SiftSearch.scores
    monkeypatch.setattr(SiftSearch, "scores", lambda self, query: matched.append(query) or scores(self, query))
    monkeypatch.setattr(evaluation, "_given", lambda options: systems)
    found = evaluation.run(options(methods="sift,none"), CONSOLE)
    assert [(row.system, row.method.name) for row in found.rows] == [
        (name, method) for name in ("one", "two") for method in ("sift", "none")
    ]
    assert len(matched) == 5
    for system in systems:
        assert system.asked == ["none"] and system.prepared == ["none"]
    assert found.rows[0].figures.map == 1.0 and found.rows[0].gain.value > 0
    cost = capsys.readouterr().out.split("cost:")[1]
    assert cost.count("sift") == 2 and "none" not in cost


def test_keypoints_are_found_once_and_a_query_never_finds_itself(tmp_path, monkeypatch):
    for label in ("a", "b"):
        for number in range(2):
            save(seen(texture(ord(label)), number), tmp_path / "data" / label / f"{number}.png")
    dataset = read(f"folder:{tmp_path / 'data'}")
    assert SiftSystem(tmp_path / "cache").prepare(dataset, [SIFT], CONSOLE) == {}
    monkeypatch.setattr("landseer.ops.evaluate.sift_system.keypoints", None)
    system, steps = SiftSystem(tmp_path / "cache"), []
    system.prepare(dataset, [SIFT], CONSOLE)
    found = system.ranker(dataset)(SIFT, lambda what, count: lambda: steps.append(count))
    assert [order[0] for order in found.orders] == [1, 0, 3, 2] and steps == [4] * 4
    assert all(len(order) == 3 for order in found.orders)
