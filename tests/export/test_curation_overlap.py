from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import plant, save, texture, things

from landseer.export.curation import overlap as module
from landseer.export.curation.matcher import matcher
from landseer.export.curation.overlap import Overlap, find_overlap, shortlist, shortlisted, within
from landseer.export.curation.settings import MatchSettings
from landseer.export.curation.sheet import sheet
from landseer.export.curation.verification import Match
from landseer.export.datasets.photograph import Box, Photograph


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 5), count=st.integers(1, 30), top=st.integers(1, 40),
    block=st.integers(1, 40),
)  # fmt: skip
def test_the_short_list_is_that_of_a_full_sort(seed, queries, count, top, block):
    rng = np.random.default_rng(seed)
    asked, known = (rng.integers(-1000, 1000, (number, 6)).astype(np.float32) for number in (queries, count))
    before, module.BLOCK = module.BLOCK, block
    try:
        found = shortlist(asked, known, top)
    finally:
        module.BLOCK = before
    order = np.argsort(-(asked @ known.T), axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_array_equal(found.similarities, np.take_along_axis(asked @ known.T, order, axis=1))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Three queries, four classes of three; two classes hold a query's thing, one of them twice."""
    folder, rng = tmp_path_factory.mktemp("overlap"), np.random.default_rng(0)
    known = things()
    queries = [
        Photograph(path=save(plant(known[kind], rng).pixels, folder / f"query{kind}.png"), label=f"query{kind}")
        for kind in (0, 1, 2)
    ]
    content = {"<cat & dog>": [1, 1, None], "cups": [None, 2, None], "rockets": [3, 3, 3], "nothing": [None] * 3}
    training = [
        Photograph(
            path=save(texture(rng) if kind is None else plant(known[kind], rng).pixels, folder / f"{n}-{row}.png"),
            label=label,
        )
        for n, (label, kinds) in enumerate(content.items())
        for row, kind in enumerate(kinds)
    ]
    vectors = rng.normal(size=(15, 8)).astype(np.float32)
    ranked = shortlist(vectors[:3], vectors[3:], 12)
    ticks = []
    with matcher(folder / "m.sqlite", MatchSettings(), workers=2) as pairs:
        pairs.prepare(one.path for one in (*queries, *shortlisted(training, ranked)))
        overlap = find_overlap(queries, training, ranked, pairs, progress=lambda: ticks.append(1))
    assert len(ticks) == 36
    return queries, training, overlap


def test_planted_duplicates_are_found_and_nothing_else(found):
    overlap = found[2]
    pairs = {(one.query.label, one.training.path.stem) for one in overlap.evidence}
    assert pairs == {("query1", "0-0"), ("query1", "0-1"), ("query2", "1-1")}
    classes = overlap.by_class()
    assert set(classes) == {"<cat & dog>", "cups"}
    strongest = [some[0].match.inliers for some in classes.values()]
    assert strongest == sorted(strongest, reverse=True)


def test_the_sheet_shows_the_evidence_and_loads_nothing(found):
    page = sheet(found[2], training="the <training> set", queries="three")
    assert "2 classes to remove" in page
    assert "the &lt;training&gt; set" in page
    assert "&lt;cat &amp; dog&gt;" in page and "<cat" not in page
    assert page.count("<svg") == 3
    assert page.count("data:image/jpeg;base64,") == 6
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "default-src 'none'" in page
    for line in re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', page):
        x1, y1, x2, y2 = map(float, line)
        assert 0 <= x1 <= 280 < 296 <= x2 <= 576  # Two pictures of 420 x 360, 240 high, and the gap.
        assert 0 <= y1 <= 240 and 0 <= y2 <= 240
    assert sheet(found[2], training="a", queries="b", shown=1).count("<svg") == 2


def test_no_overlap_is_said():
    page = sheet(Overlap(evidence=()), training="a", queries="b")
    assert "0 classes to remove" in page
    assert "No training picture shows the object of a query" in page


def test_points_outside_of_the_query_box_are_no_evidence():
    points = np.array([[10, 10], [90, 10], [50, 45]], np.float32)
    match = Match(first=points, second=points + 1, transform=np.eye(2, 3))
    left, middle = Box(x0=0, y0=0, x1=0.2, y1=1), Box(x0=0.4, y0=0.4, x1=0.6, y1=1)
    assert within(match, (), (100, 100)) is match
    assert within(match, (left,), (100, 100)).second.tolist() == [[11, 11]]
    assert within(match, (left, middle), (100, 100)).first.tolist() == [[10, 10], [50, 45]]
    assert within(match, (Box(x0=0.9, y0=0.9, x1=1, y1=1),), (100, 100)).inliers == 0


def test_a_box_on_something_else_finds_nothing(found, tmp_path):
    queries, training, _ = found
    vectors = np.eye(1, 4, dtype=np.float32)
    ranked = shortlist(vectors, vectors.repeat(12, axis=0), 12)
    pairs_file = Path(tmp_path / "m.sqlite")
    for box, count in ((Box(x0=0, y0=0, x1=1, y1=1), 2), (Box(x0=0, y0=0, x1=0.02, y1=0.02), 0)):
        asked = [Photograph(path=queries[1].path, label="q", boxes=(box,))]
        with matcher(pairs_file, MatchSettings(), workers=2) as pairs:
            pairs.prepare(one.path for one in (*asked, *training))
            assert len(find_overlap(asked, training, ranked, pairs).evidence) == count
