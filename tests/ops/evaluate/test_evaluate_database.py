"""Rows of the table that augment the database, or rank by its graph."""

from __future__ import annotations

import re

import numpy as np
import pytest

from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ops.errors import OpsError
from landseer.ops.evaluate import database
from landseer.ops.evaluate.database import Database, Databases
from landseer.ops.evaluate.diffusion import NeighbourGraph, diffuse
from landseer.ops.evaluate.methods import DATABASE_NAMES, Method, rankings
from landseer.ops.evaluate.notation import parse, parse_all
from landseer.ops.evaluate.space import BLOCK, FEW
from landseer.ops.evaluate.specs import METHODS, SERVED_METHODS

DIMENSIONS = 12


def units(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cosines(queries, neighbours):
    """The attention of a network that changes nothing."""
    return np.einsum("nd,nkd->nk", queries, neighbours)


def mean(query, neighbours):
    """A network that weighs all alike."""
    total = query + neighbours.sum(axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


def silent(what, steps):
    return lambda: None


def ranked(text, queries, references, own, begin=silent):
    method = parse(text, positions=64)
    databases = Databases(references, own, attention=lambda: cosines, threads=1)
    return list(rankings(method, queries, databases.of(method.database, begin), own, lattqe=mean))


def by_hand(text, query, references, own):
    """Rank for one query over references that never held it."""
    method, kept = parse(text, positions=64), [row for row in range(len(references)) if row != own]
    how, raw = method.database, references[kept]
    rows = augmented(raw, how.method, how.neighbours, parameter=how.parameter, attention=cosines, threads=1)
    [order] = rankings(method, query[None], Database(vectors=rows, recipe=how), [None], lattqe=mean)
    return [kept[row] for row in order]


@pytest.mark.parametrize("expansion", ["", "+none", "+aqe:2", "+alphaqe:3:2", "+dqe:3", "+lattqe:3", "+rank-curve:3"])
@pytest.mark.parametrize("name", sorted(DATABASE_NAMES.values()))
def test_a_query_of_the_database_ranks_as_if_it_had_never_been_there(name, expansion):
    references, own = units(40), [0, 17, None, 39]
    queries = np.stack([*references[[0, 17]], units(1, seed=1)[0], references[39]])
    found = ranked(f"{name}:4{expansion}", queries, references, own)
    for query, row, order in zip(queries, own, found, strict=True):
        assert order.tolist() == by_hand(f"{name}:4{expansion}", query, references, row)


def test_what_is_left_out_changes_rankings_and_only_of_queries_that_are_there():
    references = units(60)
    how = parse("alphadba:5+aqe:2", positions=64)
    leaking = Database(vectors=augmented(references, "alphaqe", 5, threads=1), recipe=how.database)
    own = list(range(60))
    with_itself = list(rankings(how, references, leaking, own, lattqe=mean))
    found = ranked("alphadba:5+aqe:2", references, references, own)
    assert any(one.tolist() != other.tolist() for one, other in zip(found, with_itself, strict=True))
    strangers = units(5, seed=3)
    expected = list(rankings(how, strangers, leaking, [None] * 5, lattqe=mean))
    found = ranked("alphadba:5+aqe:2", strangers, references, [None] * 5)
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_blocks_make_no_difference():
    references = units(2 * FEW + 3)
    own = list(range(len(references)))
    whole = ranked("alphadba:4+aqe:2", references, references, own)
    for place in (0, FEW - 1, FEW, 2 * FEW + 2):
        [alone] = ranked("alphadba:4+aqe:2", references[[place]], references, [place])
        np.testing.assert_array_equal(whole[place], alone)


def test_what_changes_is_kept_for_the_next_method_as_far_as_there_is_room(monkeypatch):
    references, how = units(30), Recipe(method="aqe", neighbours=3)
    found = Databases(references, [4, 5], attention=lambda: cosines, threads=1).of(how, silent)
    first = found.without(4)
    assert len(first.rows) and found.without(4) is first
    monkeypatch.setattr(database, "KEPT_BYTES", first.vectors.nbytes)
    short = Databases(references, [4, 5], attention=lambda: cosines, threads=1).of(how, silent)
    kept, other = short.without(4), short.without(5)
    assert len(other.rows) and short.without(4) is kept and short.without(5) is not other
    np.testing.assert_array_equal(short.without(5).vectors, other.vectors)


def test_a_database_is_augmented_once_for_each_recipe_and_block_by_block():
    begun, references = [], units(BLOCK + 1)
    databases = Databases(references, [None], attention=lambda: cosines, threads=1)

    def begin(what, steps):
        begun.append((what, steps))
        return lambda: begun.append("step")

    how = Recipe(method="aqe", neighbours=2)
    first = databases.of(how, begin)
    assert databases.of(how, begin) is first and first.changes is None
    np.testing.assert_array_equal(first.vectors, augmented(references, "aqe", 2, threads=1))
    assert begun == [("augmenting", 2), "step", "step"]
    assert databases.of(None, begin).vectors is references
    assert databases.of(Recipe(method="aqe", neighbours=3), begin) is not first and len(begun) == 6


def test_references_that_are_not_augmented_as_the_method_says_are_refused():
    with pytest.raises(ValueError, match="got references augmented by None for adba:2; expected aqe:2"):
        rankings(parse("adba:2", positions=64), units(1), units(3), [None], lattqe=mean)


def test_diffusion_ranks_by_its_scores_without_the_query_itself():
    references, own = units(FEW + 8), [*range(FEW + 4), None]
    queries = np.concatenate([references[: FEW + 4], units(1, seed=2)])
    found = ranked("diffusion:6:3", queries, references, own)
    scores = diffuse(queries, NeighbourGraph.over(references, neighbours=6), own=own, query_neighbours=3)
    for row, line, order in zip(own, scores, found, strict=True):
        assert order.tolist() == [place for place in np.argsort(-line, kind="stable") if place != row]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("text", ["diffusion", "adba", "ddba+dqe", "lattdba+lattqe", "rank-curve-dba+rank-curve"])
def test_more_neighbours_than_there_are(text, count):
    references = units(count)
    for row, order in enumerate(ranked(text, references, references, list(range(count)))):
        assert sorted(order.tolist()) == [place for place in range(count) if place != row]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("alphadba", "alphadba:2:3"),
        ("alphadba:10+alphaqe:10", "alphadba:10:3+alphaqe:10:3"),
        (" adbawd-dir:20 + aqe:10 ", "adbawd-dir:20+aqe:10"),
        ("ddba+none", "ddba:2"),
        ("lattdba+lattqe", "lattdba:4:0.3+lattqe:64"),
        ("lattdba:20:0.05", "lattdba:20:0.05"),
        ("rank-curve-dba+rank-curve:9", "rank-curve-dba:4+rank-curve:9"),
        ("diffusion", "diffusion:50:10"),
        ("diffusion:20", "diffusion:20:10"),
        ("diffusion:20:5", "diffusion:20:5"),
    ],
)
def test_methods_are_read_and_written(text, written):
    assert str(parse(text, positions=64)) == written
    assert parse(written, positions=64) == parse(text, positions=64)


def test_the_database_is_named_as_the_command_that_augments_names_it():
    assert str(parse("adbawd-dir:5+aqe", positions=64).database) == "aqewd-dir:5"
    assert parse("alphadba:5+alphaqe:7:2", positions=64).family == "alphadba:5:3+alphaqe, alpha 2"
    assert parse("lattdba", positions=3).database.neighbours == 3
    assert Method(name="none").family == "none"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aqe+aqe", "before `+` expected one of adba, adbawd, adbawd-dir, alphadba, ddba, rank-curve-dba, lattdba"),
        ("+aqe", "before `+` expected one of adba"),
        ("adba+", "after `+` expected one of none, lattqe, aqe"),
        ("adba+adba", "after `+` expected one of none"),
        ("adba+diffusion", "after `+` expected one of none"),
        ("adba+aqe+aqe", "after `+` expected one of none"),
        ("adba+qe", "--methods names 'qe'"),
        ("adba:x", "--methods has 'adba:x', augmentation by aqe: got the method 'aqe:x'; expected NAME:NEIGHBOURS"),
        ("adba:2:3", "got too many numbers for aqe"),
        ("ddba:65", "got 65 neighbours for dqe; expected 0 to 64"),
        ("lattdba:5:0", "T above 0"),
        ("adba+aqe:0", "expected aqe with 1 to 1000 neighbours"),
        ("none:3", "expected none without numbers"),
        ("diffusion:0", "expected diffusion:NEIGHBOURS:QUERY_NEIGHBOURS, each from 1 to 1000"),
        ("diffusion:5:x", "such as diffusion:50:10"),
        ("diffusion:5:5:5", "such as diffusion:50:10"),
        ("diffusion:2000", "each from 1 to 1000"),
    ],
)
def test_methods_that_cannot_be_say_why(text, said):
    with pytest.raises(OpsError, match=re.escape(said)):
        parse_all(f"none,{text}", positions=64)


def test_the_defaults_can_be_read_and_a_service_is_asked_for_what_it_has():
    assert {method.name for method in parse_all(METHODS, positions=64)} >= {"none", "diffusion", "dqe"}
    assert not any(method.database for method in parse_all(SERVED_METHODS, positions=64))
