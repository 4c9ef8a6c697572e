import numpy as np
import pytest
import torch

from landseer.ensemble.contracts import Sizes
from landseer.ensemble.expansion.augmentation import augmented
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import unit
from landseer.ops.results import expanding
from landseer.ops.results.expanding import Part, Space, Way, judge, learned_temperature, tuned, tuned_database
from landseer.ops.results.expansion_report import Found, sweep_table, table


@pytest.fixture(scope="module")
def space() -> Space:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 8)
    rows = rng.standard_normal((5, 16))[labels] + 1.2 * rng.standard_normal((40, 16))
    return Space(vectors=unit(rows.astype(np.float32)), labels=labels, queries=np.arange(0, 40, 4))


@pytest.fixture(scope="module")
def network() -> RelationalLAttQE:
    return RelationalLAttQE.untrained(Sizes(channels=16), seed=0)


def test_without_expansion_the_cosine_ranks(space: Space) -> None:
    found = judge(space, Way(name="none"), None)
    scores = space.vectors[space.queries] @ space.vectors.T
    first = [
        np.argmax(np.where(np.arange(40) == row, -2, line)) for line, row in zip(scores, space.queries, strict=True)
    ]
    assert np.array_equal(found.precisions[:, 0], space.labels[first] == space.labels[space.queries])


def test_an_untrained_network_expands_as_aqe_does(space: Space, network: RelationalLAttQE) -> None:
    lattqe, aqe = (judge(space, Way(name="", query=Part(method=m, neighbours=4)), network) for m in ("lattqe", "aqe"))
    np.testing.assert_allclose(lattqe.aps, aqe.aps)


def test_a_database_is_augmented_without_the_query(space: Space) -> None:
    part = Part(method="alphaqe", neighbours=3)
    found = judge(space, Way(name="", database=part), None)
    for place, row in enumerate(space.queries):
        others = np.delete(np.arange(40), row)
        database = augmented(space.vectors[others], "alphaqe", 3, parameter=3.0)
        order = others[np.argsort(-(database @ space.vectors[row]), kind="stable")]
        assert found.precisions[place, 0] == (space.labels[order[0]] == space.labels[row])


def test_searching_leaves_the_database_as_it_was(space: Space) -> None:
    before = space.vectors.copy()
    judge(space, Way(name="", database=Part(method="aqe", neighbours=2), query=Part(method="aqe", neighbours=2)), None)
    assert np.array_equal(space.vectors, before)


def test_what_is_tuned_is_the_best_of_its_grid(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expanding, "DATABASE_NEIGHBOURS", (2, 4))
    found = tuned(space, "aqe")
    maps = {
        k: judge(space, Way(name="", query=Part(method="aqe", neighbours=k)), None).map for k in (1, 2, 4, 8, 16, 32)
    }
    assert maps[found.neighbours] == max(maps.values())
    assert tuned_database(space, found).neighbours in (2, 4)


def test_the_temperature_is_one_of_those_tried(space: Space, network: RelationalLAttQE) -> None:
    with torch.random.fork_rng(devices=[]):
        part = learned_temperature(space.sampled(3, 0), network)
    assert part.parameter in expanding.TEMPERATURES and part.neighbours == 48


def test_the_tables_compare_each_row_over_all_folds(space: Space, network: RelationalLAttQE) -> None:
    ways = [Way(name="none"), Way(name="LAttQE", query=Part(method="lattqe", neighbours=64))]
    folds = [[Found(way=way, figures=judge(space.sampled(n, 0), way, network)) for way in ways] for n in (4, 6)]
    text = table(folds, against="LAttQE")
    none, lattqe = text.splitlines()[2:]
    assert none.startswith("| none | ") and "| - |" in none
    assert lattqe.rstrip().endswith("| lattqe:64 |")
    swept = sweep_table((1, 2), [{"aqe": [10.0, 20.0]}, {"aqe": [20.0, 40.0]}])
    assert "| aqe | 15.0 | 30.0 |" in swept
