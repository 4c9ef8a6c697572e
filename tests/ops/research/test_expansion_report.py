from dataclasses import replace

import numpy as np
import pytest

from landseer.ensemble.evaluation import Truth, evaluate
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import unit
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.labelled_vectors import LabelledVectors
from landseer.ops.evaluate.methods import NO_EXPANSION, Method
from landseer.ops.research import expansion_search
from landseer.ops.research.expansion_report import ExpansionRow, sweep_table, table
from landseer.ops.research.expansion_search import (
    LATTQE_SEARCH,
    LabelledSearch,
    best,
    tuned,
    tuned_behind_lattdba,
    tuned_database,
    tuned_lattdba,
    tuned_lattqe,
)


@pytest.fixture(scope="module")
def space() -> LabelledVectors:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 8)
    rows = rng.standard_normal((5, 16))[labels] + 1.2 * rng.standard_normal((40, 16))
    return LabelledVectors(vectors=unit(rows.astype(np.float32)), labels=labels, queries=np.arange(0, 40, 4))


@pytest.fixture(scope="module")
def searched(space: LabelledVectors) -> LabelledSearch:
    return LabelledSearch(space, RelationalLAttQE.untrained(Sizes(channels=16), seed=0))


def test_without_expansion_the_cosine_ranks(space: LabelledVectors, searched: LabelledSearch) -> None:
    scores = space.vectors[space.queries] @ space.vectors.T
    scores[np.arange(len(scores)), space.queries] = -2
    right = space.labels[scores.argmax(axis=1)] == space.labels[space.queries]
    assert np.array_equal(searched.by(NO_EXPANSION).precisions[:, 0], right)


def test_an_untrained_network_does_not_expand(searched: LabelledSearch) -> None:
    np.testing.assert_allclose(searched.by(LATTQE_SEARCH).aps, searched.by(NO_EXPANSION).aps)


def test_lattqe_without_a_network_is_refused(space: LabelledVectors) -> None:
    with pytest.raises(OpsError, match="needs a network"):
        LabelledSearch(space).by(LATTQE_SEARCH)


def test_a_database_is_augmented_without_the_query(space: LabelledVectors, searched: LabelledSearch) -> None:
    recipe = Recipe(method="alphaqe", neighbours=3, parameter=3.0)
    found = searched.by(Method(name="none", database=recipe))
    for place, row in enumerate(space.queries):
        others = np.delete(np.arange(40), row)
        database = augmented(space.vectors[others], "alphaqe", 3, parameter=3.0)
        order = others[np.argsort(-(database @ space.vectors[row]), kind="stable")]
        assert found.precisions[place, 0] == (space.labels[order[0]] == space.labels[row])


def test_searching_leaves_the_vectors_as_they_were(space: LabelledVectors, searched: LabelledSearch) -> None:
    before = space.vectors.copy()
    searched.by(Method(name="aqe", neighbours=2, database=Recipe(method="aqe", neighbours=2)))
    assert np.array_equal(space.vectors, before)


def test_what_is_tuned_is_the_best_of_its_grid(searched: LabelledSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion_search, "DATABASE_NEIGHBOURS", (2, 4))
    found = tuned([searched], "aqe")
    maps = {k: searched.by(Method(name="aqe", neighbours=k)).map for k in (1, 2, 4, 8, 16, 32)}
    assert maps[found.neighbours] == max(maps.values())
    both = tuned_database([searched], found)
    assert (both.name, both.neighbours) == (found.name, found.neighbours)
    assert both.database is not None and both.database.method == "aqe" and both.database.neighbours in (2, 4)


def test_queries_of_all_spaces_tune_together(space: LabelledVectors) -> None:
    networks = [RelationalLAttQE.untrained(Sizes(channels=16), seed=seed) for seed in (0, 1)]
    spaces = [LabelledSearch(space.sampled(count, 0), one) for count, one in zip((3, 6), networks, strict=True)]
    methods = [Method(name="aqe", neighbours=k) for k in (1, 4, 32)]
    maps = [np.concatenate([one.by(method).aps for one in spaces]).mean() for method in methods]
    assert best(spaces, methods) == methods[int(np.argmax(maps))]


def test_the_temperature_is_one_of_those_tried(searched: LabelledSearch) -> None:
    recipe = tuned_lattdba([searched]).database
    assert recipe is not None and recipe.parameter in expansion_search.TEMPERATURES and recipe.neighbours == 48


def test_lattqe_and_then_what_is_before_it_are_tuned(searched: LabelledSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion_search, "DATABASE_NEIGHBOURS", (2, 4))
    monkeypatch.setattr(expansion_search, "TEMPERATURES", (0.5, 1.0))
    query = tuned_lattqe([searched])
    maps = {k: searched.by(replace(LATTQE_SEARCH, neighbours=k)).map for k in expansion_search.LATTQE_COUNTS}
    assert maps[query.neighbours] == max(maps.values())
    behind = tuned_behind_lattdba([searched], query)
    assert replace(behind, database=None) == query and behind.database is not None
    recipes = [Recipe(method="lattqe", neighbours=k, parameter=t) for k in (2, 4) for t in (0.5, 1.0)]
    assert behind.database in recipes
    assert searched.by(behind).map == max(searched.by(replace(query, database=one)).map for one in recipes)


def test_the_tables_compare_each_row_over_all_folds(space: LabelledVectors) -> None:
    networks = [RelationalLAttQE.untrained(Sizes(channels=16), seed=seed) for seed in (0, 1)]
    parts = [[LabelledSearch(space.sampled(count, 0), network) for network in networks] for count in (4, 6)]
    folds = [
        [
            ExpansionRow(
                name="none", methods=[NO_EXPANSION], figures=[one.by(NO_EXPANSION)], classes=one.space.classes()
            ),
            ExpansionRow(
                name="LAttQE",
                methods=[LATTQE_SEARCH] * 2,
                figures=[two.by(LATTQE_SEARCH) for two in (one, other)],
                classes=one.space.classes(),
            ),
        ]
        for one, other in parts
    ]
    header, _, none, lattqe = table(folds, against="LAttQE").splitlines()
    assert "| LAttQE against this row |" in header
    assert none.startswith("| none | ") and none.rstrip().endswith("| none |")
    assert none.split(" | ")[3:6] == ["-", "-", "-"]
    assert lattqe.split(" | ")[3].startswith("2: ") and lattqe.split(" | ")[6:8] == ["-", "-"]
    assert lattqe.rstrip().endswith("| lattqe:64 |")
    swept = sweep_table((1, 2), [{"aqe": [10.0, 20.0]}, {"aqe": [20.0, 40.0]}])
    assert "| aqe | 15.0 | 30.0 |" in swept


def test_a_row_is_the_mean_over_seeds_and_says_their_range() -> None:
    truths = [Truth(easy=np.array([0])), Truth(easy=np.array([1]))]
    right, half = (evaluate(orders, truths, ks=(1,)) for orders in ([[0, 1], [1, 0]], [[0, 1], [0, 1]]))
    found = ExpansionRow(name="LAttQE", methods=[LATTQE_SEARCH] * 2, figures=[right, half], classes=np.arange(2))
    none = ExpansionRow(name="none", methods=[NO_EXPANSION], figures=[half], classes=np.arange(2))
    assert found.aps.tolist() == [1.0, (1.0 + half.aps[1]) / 2] and found.first.tolist() == [1.0, 0.5]
    line = table([[none, found]], against="LAttQE").splitlines()[3]
    assert line.startswith(f"| LAttQE | {100 * found.aps.mean():.1f} (")
    assert f"| 2: {100 * half.map:.1f} to 100.0 |" in line and "| 75.0% |" in line
