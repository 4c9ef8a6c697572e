"""Rows of the table that rank by local descriptors, and where their codebook and their regions come from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from landseer.ensemble.asmk.aggregate import asmk, naive_rasmk, rasmk, rvlad
from landseer.ensemble.asmk.codebook import train
from landseer.ensemble.asmk.kernel import INNER_PRODUCT, KERNELS, similarity
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import Region
from landseer.ensemble.verify.verification import Located, verify
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.codebooks import CodebooksBySize, CodebookSource
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.methods import answers
from landseer.ops.evaluate.needs import needed
from landseer.ops.evaluate.notation import parse, parse_all
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.regions import Boxes, crops, flat
from landseer.ops.evaluate.space import Space

D, PICTURES = 16, 9
PROFILE = Profile(backbone="b", weights_sha256="", sizes=Sizes(channels=8, local=D), locals_sha256="abc")
CONSOLE = Console(stderr=True)


def units(count, size, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Side:
    """Pictures of 0 to 8 local descriptors, each with up to two regions; the queries are the first pictures."""

    def __init__(self, queries):
        self.wholes = [units(row, D, row).astype(np.float16) for row in range(PICTURES)]
        self.cuts = [
            [units(3, D, 100 + row + part).astype(np.float16) for part in range(row % 3)] for row in range(PICTURES)
        ]
        self.places = [
            np.random.default_rng(row).uniform(0, 99, (row, 2)).astype(np.float32) for row in range(PICTURES)
        ]
        self.queries = queries
        self.book = train(units(400, D, 5), words=8)

    def of_references(self, name):
        return iter({"local_descriptors": self.wholes, "local_positions": self.places}[name])

    def of_queries(self, name):
        found = list(self.of_references(name))
        return iter([found[row] for row in self.queries])

    def regions(self):
        return iter(self.cuts)

    def codebook(self, words):
        assert words in (0, 8)
        return self.book


def found(text, queries=(8, 7, 0)):
    vectors, side = units(PICTURES, 6), Side(queries)
    space = Space(
        queries=vectors[list(queries)],
        database=Database(vectors=vectors),
        own=[8, None, 0],
        lattqe=lambda query, near: query,
        arrays=side,
    )
    return side, list(answers(parse(text, positions=64), space))


def binary(rows, book):
    return asmk(rows.astype(np.float32), book).binarised()


@pytest.mark.parametrize("text", ["asmk", "rasmk:8"])
def test_pictures_rank_by_the_kernel(text):
    side, rows = found(text)
    for number, own, row in zip(side.queries, [8, None, 0], rows, strict=True):
        query, scores = binary(side.wholes[number], side.book), []
        for whole, cuts in zip(side.wholes, side.cuts, strict=True):
            counts = [len(whole), *(len(cut) for cut in cuts)]
            regional = rasmk(np.concatenate([whole, *cuts]).astype(np.float32), counts, side.book).binarised()
            candidate = binary(whole, side.book) if text == "asmk" else regional
            scores.append(max(0.0, similarity(query, candidate, KERNELS["asmk" if text == "asmk" else "r-asmk"])))
        expected = [key for key in np.argsort(-np.array(scores), kind="stable").tolist() if key != own]
        assert [scores[key] for key in row.order] == pytest.approx([scores[key] for key in expected])
        assert sorted(row.order.tolist()) == sorted(expected)
        assert row.index_bytes > 0


def whole_of(form, rows, counts, book):
    rows = rows.astype(np.float32)
    return form(rows, book) if form is asmk else form(rows, counts, book)


@pytest.mark.parametrize(
    ("text", "form", "kernel", "regional"),
    [
        ("vlad:8", rvlad, INNER_PRODUCT, False),
        ("rvlad", rvlad, INNER_PRODUCT, True),
        ("asmk-fp32", asmk, KERNELS["asmk"], False),
        ("rasmk-fp32:8", rasmk, KERNELS["r-asmk"], True),
        ("rasmk-naive", naive_rasmk, KERNELS["r-asmk"], True),
    ],
)
def test_pictures_rank_by_residuals_in_full(text, form, kernel, regional):
    side, rows = found(text)
    for number, own, row in zip(side.queries, [8, None, 0], rows, strict=True):
        mine = side.wholes[number]
        query, scores = whole_of(form, mine, [len(mine)], side.book), []
        for whole, cuts in zip(side.wholes, side.cuts, strict=True):
            regions = [whole, *(cuts if regional else ())]
            counts = [len(one) for one in regions]
            candidate = whole_of(form, np.concatenate(regions), counts, side.book)
            scores.append(similarity(query, candidate, kernel) if len(query.words) and len(candidate.words) else 0.0)
        expected = [key for key in np.argsort(-np.array(scores), kind="stable").tolist() if key != own]
        assert [scores[key] for key in row.order] == pytest.approx([scores[key] for key in expected], abs=1e-6)
        assert sorted(row.order.tolist()) == sorted(expected)
        assert row.index_bytes > 0


@pytest.mark.parametrize(("text", "pooled"), [("asmk-max", max), ("asmk-mean:8", np.mean)])
def test_a_picture_takes_the_best_or_the_mean_of_its_regions(text, pooled):
    side, rows = found(text)
    for number, own, row in zip(side.queries, [8, None, 0], rows, strict=True):
        query = binary(side.wholes[number], side.book)
        scores = [
            pooled([similarity(query, binary(one, side.book), KERNELS["asmk"]) for one in (whole, *cuts)])
            for whole, cuts in zip(side.wholes, side.cuts, strict=True)
        ]
        expected = [key for key in np.argsort(-np.array(scores), kind="stable").tolist() if key != own]
        assert [scores[key] for key in row.order] == pytest.approx([scores[key] for key in expected])
        assert sorted(row.order.tolist()) == sorted(expected)


def test_the_word_filter_puts_those_that_share_a_word_first():
    side, rows = found("words:8")
    _, before = found("none")
    for number, row, plain in zip(side.queries, rows, before, strict=True):
        mine = set(binary(side.wholes[number], side.book).words.tolist())
        shares = [bool(mine & set(binary(one, side.book).words.tolist())) for one in side.wholes]
        expected = sorted(plain.order.tolist(), key=lambda key: not shares[key])
        assert row.order.tolist() == expected


def test_spatial_verification_ranks_the_first_by_inliers_then_by_their_score():
    side, rows = found("spatial:5")
    _, before = found("none")
    pictures = [
        Located(features=one.astype(np.float32), positions=at) for one, at in zip(side.wholes, side.places, strict=True)
    ]
    for number, row, plain in zip(side.queries, rows, before, strict=True):
        inliers = verify(pictures[number], [pictures[key] for key in plain.order[:5]])
        expected = [plain.order[place] for place in np.argsort(-inliers, kind="stable")]
        assert row.order[:5].tolist() == expected
        np.testing.assert_array_equal(row.order[5:], plain.order[5:])
        assert row.index_bytes == pytest.approx(6 * 4 + np.mean(range(PICTURES)) * (2 * D + 8))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("asmk", "asmk"),
        ("rasmk:1024", "rasmk:1024"),
        ("words+coattention:50", "words+coattention:50"),
        ("asmk:64+spatial", "asmk:64+spatial:100"),
        ("aqe+spatial:20", "aqe:1+spatial:20"),
    ],
)
def test_rows_are_read_and_written(text, written):
    assert str(parse(text, positions=64)) == written
    assert parse(written, positions=64) == parse(text, positions=64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asmk:0", "expected asmk:WORDS, from 1 to 65,536"),
        ("rasmk:8:8", "such as rasmk:1024"),
        ("words:x", "expected words:WORDS"),
        ("adba+asmk", "after `+` expected one of none"),
        ("spatial:5:1", "expected spatial:CANDIDATES, with 1 to 1000 candidates, such as spatial:100"),
    ],
)
def test_rows_that_cannot_be_say_why(text, said):
    with pytest.raises(OpsError, match=re.escape(said)):
        parse(text, positions=64)


def test_rows_say_what_they_need():
    assert needed(parse_all("rasmk", positions=64)) == {"local_descriptors", "boxes"}
    assert needed(parse_all("words+coattention,spatial", positions=64)) == {
        "local_descriptors",
        "query_vector",
        "clusters",
        "local_positions",
    }


def test_regions_are_the_first_boxes_whose_score_is_high_enough():
    boxes = np.array([[1, 2, 30, 40, 0.9], [0, 0, 9, 9, 0.05], [5, 6, 7, 8, 0.1], [1, 1, 1, 1, 0.8]], np.float32)
    path = Path("a.jpg")
    chosen = Boxes(most=2, least=0.1).shots(path, boxes)
    assert [shot.region for shot in chosen] == [
        Region(x=1, y=2, width=30, height=40),
        Region(x=5, y=6, width=7, height=8),
    ]
    assert Boxes(most=0).shots(path, boxes) == []
    both = crops([path, Path("b.jpg")], [boxes, boxes[:0]], Boxes())
    assert both[Path("b.jpg")] == [] and list(flat(both)) == chosen


@pytest.fixture
def photographs(tmp_path):
    for name in ("a/1", "a/2", "b/3", "b/4"):
        path = tmp_path / "learn" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "learn"


def test_words_are_learned_once_from_photographs_of_another_data_set(photographs, tmp_path):
    source = CodebookSource(learned_from=f"folder:{photographs}", pictures=3)
    (tmp_path / "other" / "c").mkdir(parents=True)
    for name in "56":
        Image.new("RGB", (8, 8)).save(tmp_path / "other" / "c" / f"{name}.png")
    shots = source.shots(read(f"folder:{tmp_path / 'other'}"))
    assert len(shots) == 3 and all(isinstance(shot, Shot) for shot in shots)
    with pytest.raises(OpsError, match=r"4 photographs of --codebook-from .* are also searched"):
        source.shots(read(f"folder:{photographs}"))
    asked = []

    def features():
        asked.append(1)
        return [units(100, D, seed).astype(np.float16) for seed in range(4)]

    for _ in range(2):
        books = CodebooksBySize(source, PROFILE, home=tmp_path / "home")
        books.learn([0, 4, 4], features, b"key", CONSOLE)
        assert (books.of(0).words, books.of(4).words) == (8, 4)
    assert asked == [1]
    with pytest.raises(OpsError, match="cannot learn 4,096 words"):
        books.learn([4096], features, b"key", CONSOLE)


def test_a_codebook_that_does_not_fit_is_one_line(tmp_path):
    for name, size, of in (("fits", D, "abc"), ("wide", D + 1, "abc"), ("others", D, "xyz")):
        replace(train(units(50, size), words=4), card={"locals_sha256": of}).save(tmp_path / name)
    (tmp_path / "none").write_text("no codebook at all")
    fits = CodebooksBySize(CodebookSource(file=tmp_path / "fits"), PROFILE, home=tmp_path)
    assert fits.of(0).words == fits.of(4).words == 4
    with pytest.raises(OpsError, match="has 4 words; got a row of 8: leave the number out"):
        fits.of(8)
    for name, what in (("wide", "SHA-256 abc, 17 values"), ("others", "SHA-256 xyz, 16 values")):
        with pytest.raises(OpsError, match=rf"{name} was trained on local descriptors of other models \({what}"):
            CodebooksBySize(CodebookSource(file=tmp_path / name), PROFILE, home=tmp_path).of(0)
    for name in ("none", "gone"):
        with pytest.raises(OpsError, match=f"{name} cannot be read"):
            CodebooksBySize(CodebookSource(file=tmp_path / name), PROFILE, home=tmp_path).of(0)
    with pytest.raises(OpsError, match="give --codebook FILE or --codebook-from DATA"):
        CodebooksBySize(CodebookSource(), PROFILE, home=tmp_path).of(0)
