"""Rows of the table that rank the first candidates anew."""

from __future__ import annotations

import re

import numpy as np
import pytest

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.search.coattention import Coattention
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.coattention import TorchCoattention
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.methods import Method, answers
from landseer.ops.evaluate.needs import needed
from landseer.ops.evaluate.notation import parse, parse_all
from landseer.ops.evaluate.reranking import Reranking, stacked
from landseer.ops.evaluate.space import Space
from landseer.ops.evaluate.specs import METHODS

SIZES = Sizes(channels=8, reduced=4, clusters=3, locals=6)
PROFILE = Profile(backbone="b", weights_sha256="", sizes=SIZES)


def units(count, size, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Side:
    """As many clusters as a picture's number allows, and single features that are reduced by taking half of them."""

    def __init__(self, references, queries):
        self.arrays = {
            "query_vector": ([], list(units(queries, SIZES.reduced, 7))),
            "clusters": ([units(row % 4, SIZES.reduced, row).astype(np.float16) for row in range(references)], []),
            "local_features": (
                [units(row % 6, SIZES.channels, row).astype(np.float16) for row in range(references)],
                [],
            ),
        }

    def of_references(self, name):
        return iter(self.arrays[name][0])

    def of_queries(self, name):
        return iter(self.arrays[name][1])

    def coattention(self):
        return TorchCoattention(PROFILE)

    coattention_of_all = coattention

    def reduced(self, features):
        half = features[:, : SIZES.reduced].astype(np.float32)
        return (half / np.linalg.norm(half, axis=1, keepdims=True)).astype(np.float16)


def by_hand(query, vectors, temperature=10.0):
    """Hu and Bors 2020, eqs. 7 to 10, for one candidate."""
    if not len(vectors):
        return -1.0
    vectors = vectors.astype(np.float64)
    weights = np.exp(temperature * (vectors @ query))
    attended = (weights / weights.sum()) @ vectors
    return float(query @ attended / np.linalg.norm(attended))


def found(text, references=12, queries=3):
    vectors, asked = units(references, 8), units(queries, 8, 1)
    side = Side(references, queries)
    space = Space(
        queries=asked,
        database=Database(vectors=vectors),
        own=[None, 2, 5],
        lattqe=lambda query, near: query,
        arrays=side,
    )
    return vectors, asked, side, list(answers(parse(text, positions=64), space))


@pytest.mark.parametrize(("text", "name"), [("coattention:5", "clusters"), ("coattention-naive:5", "local_features")])
def test_the_first_are_ranked_by_the_definition_and_the_rest_stay(text, name):
    _, _, side, rows = found(text)
    _, _, _, before = found("none")
    for place, (row, plain) in enumerate(zip(rows, before, strict=True)):
        query = side.arrays["query_vector"][1][place]
        of = [side.reduced(one) if name == "local_features" else one for one in side.arrays[name][0]]
        expected = sorted(plain.order[:5].tolist(), key=lambda key: (-by_hand(query, of[key]), key))
        assert row.order[:5].tolist() == expected
        np.testing.assert_array_equal(row.order[5:], plain.order[5:])
        assert row.seconds > 0 and row.index_bytes > plain.index_bytes == 8 * 4


def test_fused_with_weight_0_nothing_changes_and_with_half_the_mean_counts():
    vectors, asked, side, rows = found("coattention:5:0")
    _, _, _, before = found("none")
    for row, plain in zip(rows, before, strict=True):
        np.testing.assert_array_equal(row.order, plain.order)
    _, _, _, rows = found("coattention:12:0.5")
    for place, (row, plain) in enumerate(zip(rows, before, strict=True)):
        query = side.arrays["query_vector"][1][place]
        mean = {
            key: by_hand(query, side.arrays["clusters"][0][key]) + float(vectors[key] @ asked[place])
            for key in plain.order
        }
        assert row.order.tolist() == sorted(mean, key=lambda key: -mean[key])


def test_it_follows_an_expansion():
    _, _, _, rows = found("aqe:2+coattention:4")
    _, _, _, before = found("aqe:2")
    for row, plain in zip(rows, before, strict=True):
        assert sorted(row.order[:4]) == sorted(plain.order[:4])
        np.testing.assert_array_equal(row.order[4:], plain.order[4:])


def test_a_picture_without_clusters_ranks_last_of_the_candidates():
    vectors, counts = stacked([units(2, 4), units(0, 4)])
    assert vectors.shape == (2, 2, 4) and counts.tolist() == [2, 0]
    scores = TorchCoattention(PROFILE)(units(1, 4)[0], vectors, counts)
    assert isinstance(scores, Coattention) and scores.scores[1] == -1 < scores.scores[0]


def test_without_local_features_a_row_is_refused():
    references = units(4, 8)
    space = Space(
        queries=references, database=Database(vectors=references), own=[0] * 4, lattqe=lambda query, near: query
    )
    with pytest.raises(OpsError, match="this row needs coattention"):
        answers(parse("coattention", positions=64), space)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("coattention", "coattention:100"),
        ("coattention:50:1", "coattention:50"),
        ("coattention:50:0.25", "coattention:50:0.25"),
        ("none+coattention-naive", "coattention-naive:100"),
        ("aqe + coattention:20", "aqe:1+coattention:20"),
        ("adba:3+coattention", "adba:3+coattention:100"),
        ("alphadba:10+alphaqe:10+coattention", "alphadba:10:3+alphaqe:10:3+coattention:100"),
        ("diffusion+coattention", "diffusion:50:10+coattention:100"),
    ],
)
def test_rows_are_read_and_written(text, written):
    assert str(parse(text, positions=64)) == written
    assert parse(written, positions=64) == parse(text, positions=64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "coattention:0",
            "expected coattention:CANDIDATES:WEIGHT, with 1 to 1000 candidates, and a weight from 0 to 1",
        ),
        ("coattention:x", "such as coattention:100"),
        ("coattention:5:2", "a weight from 0 to 1"),
        ("coattention:5:nan", "a weight from 0 to 1"),
        ("coattention:5:1:1", "such as coattention:100"),
        ("coattention+aqe", "before `+` expected one of adba"),
        ("coattention+coattention", "names 'coattention'"),
    ],
)
def test_rows_that_cannot_be_say_why(text, said):
    with pytest.raises(OpsError, match=re.escape(said)):
        parse(text, positions=64)


def test_pictures_are_described_by_what_the_rows_need():
    assert not needed(parse_all(METHODS, positions=64))
    assert needed([Method(name="none", reranking=Reranking(name="coattention"))]) == {"query_vector", "clusters"}
    assert needed(parse_all("none,coattention,aqe+coattention-naive", positions=64)) == {
        "query_vector",
        "clusters",
        "local_features",
    }
