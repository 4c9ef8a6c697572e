from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from landseer.ensemble.evaluation import Evaluation, Truth, average_precision, evaluate
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.curves import CurveRow
from landseer.export.training.episodes import Kind, unit
from landseer.export.training.expansion import expand_all
from landseer.export.training.lattqe import PARTS, TEMPERATURES, mixtures
from landseer.ops.evaluate.head_vectors import Vectors
from landseer.ops.evaluate.methods import Method, rankings
from landseer.ops.research.expansion_sweep import _how_far
from landseer.ops.research.kept import Kept, digest
from landseer.ops.research.searched import Figures, Searched, by_network, by_rule, by_svm, of_labels
from landseer.ops.research.sweep_databases import OF_LATTDBA, RIVALS, Tuned, in_databases, tuned
from landseer.ops.research.sweep_text import Piece, Sweep, against, by_interval, short

LABELS = np.repeat(np.arange(5), 8)


@pytest.fixture(scope="module")
def searched() -> Searched:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 16))[LABELS] + 1.2 * rng.standard_normal((40, 16))
    return of_labels(unit(rows.astype(np.float32)), LABELS)


def evaluated(searched: Searched, method: Method, network: ExpansionNetwork | None = None) -> Evaluation:
    """Judge a method as `landseer evaluate` does."""

    def expand(query: Vectors, neighbours: Vectors) -> Vectors:
        assert network is not None
        return np.asarray(expand_all(network, query[None], neighbours[None])[0])

    orders = list(rankings(method, searched.queries, searched.database, range(40), lattqe=expand))
    truths = [Truth(easy=np.setdiff1d(np.flatnonzero(label == LABELS), [row])) for row, label in enumerate(LABELS)]
    return evaluate(orders, truths, ks=(1,))


@pytest.mark.parametrize(("name", "alpha"), [("aqe", 1.0), ("alphaqe", 3.0), ("rank-curve", 1.0)])
def test_rules_rank_as_an_evaluation_does(searched: Searched, name: str, alpha: float) -> None:
    found = searched.by(by_rule(name, alpha), 4)
    expected = evaluated(searched, Method(name=name, neighbours=4, alpha=alpha))
    np.testing.assert_allclose(found.aps, 100 * expected.aps)
    np.testing.assert_allclose(found.first, 100 * expected.precisions[:, 0])


def test_a_network_expands_as_in_an_evaluation_and_the_gated_form_takes_nothing_away(searched: Searched) -> None:
    network = RelationalLAttQE.untrained(Sizes(channels=16), seed=0)
    with torch.no_grad():
        for module in (network.strength, network.subtract):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    found = searched.by(by_network(network), 6)
    np.testing.assert_allclose(found.aps, 100 * evaluated(searched, Method(name="lattqe", neighbours=6), network).aps)
    order = searched.ranked(searched.queries)
    near, far = searched.database[order[:, :6]], searched.database[order[:, -6:-1]]
    plain, gated = (by_network(network, gated=gate)(searched.queries, near, far) for gate in (False, True))
    with torch.no_grad():
        tokens = torch.from_numpy(np.concatenate([searched.queries[:, None], near], axis=1))
        weights, logits = network.weights(tokens, torch.ones(len(near), 6, dtype=torch.bool))
    assert (weights < 0).any()
    kept = weights * ((weights > 0) & (logits > 0))
    kept[:, 0] = 1.0
    np.testing.assert_allclose(gated, torch.einsum("qt,qtd->qd", kept, tokens), atol=1e-5)
    np.testing.assert_allclose(plain, torch.einsum("qt,qtd->qd", weights, tokens), atol=1e-5)


def test_the_svm_has_the_lowest_ranked_for_negatives(searched: Searched) -> None:
    found = searched.by(by_svm, 4)
    expected = evaluated(searched, Method(name="dqe", neighbours=4))
    np.testing.assert_allclose(found.aps, 100 * expected.aps)


def test_drawn_queries_keep_their_answers(searched: Searched) -> None:
    some = searched.drawn(7)
    assert len(some.queries) == 7 and some.database is searched.database
    rows = [int(np.flatnonzero((searched.queries == query).all(axis=1))[0]) for query in some.queries]
    np.testing.assert_array_equal(some.by(None, 0).aps, searched.by(None, 0).aps[rows])
    assert len(searched.drawn(100).queries) == 40


def figures(ap: float, first: float) -> Figures:
    return Figures(aps=np.full(40, ap), first=np.full(40, first))


def swept(searched: Searched, first: float) -> Sweep:
    """One data set, on which `aqe` loses a little with one neighbour, and two trainings of LAttQE."""
    rows = {
        "none": [figures(50, 90)] * 7,
        "aqe": [figures(49.8, first), *[figures(51, 90)] * 6],
        "lattqe": [*[figures(50, 90)] * 6, figures(52, 92.5)],
        "lattqe, training 2": [figures(54, 90)] * 7,
    }
    network = RelationalLAttQE.untrained(Sizes(channels=16), seed=0)
    sets = {"products": [Piece(searched, network)]}
    return Sweep(sets=sets, rows={"products": rows}, tuned={"aqe": 4, "lattqe": 64})


def test_what_costs_too_much_is_marked(searched: Searched) -> None:
    told = [short(swept(searched, first)) for first in (89.6, 89.4)]
    assert "| products | 50.0 | +1.0 (+1.0 to +1.0) | +2.0 (+2.0 to +2.0) |" in told[0]
    assert "| | 90.0 first | -0.2, -0.4 | +0.0, +0.0 |" in told[0]
    assert "| | 90.0 first | **-0.2, -0.6** | +0.0, +0.0 |" in told[1]


def test_the_network_is_told_by_number_of_neighbours_and_against_the_best_rival(searched: Searched) -> None:
    sweep = swept(searched, 90.0)
    told = by_interval(sweep).splitlines()
    assert told[2].startswith("| products: lattqe mAP | +0.0 (+0.0 to +0.0) |")
    assert told[3].endswith("| +2.5 (+2.5 to +2.5) |")
    assert told[4].startswith("| products: lattqe, training 2 mAP | +4.0 (+4.0 to +4.0) |")
    gains = "+2.0 (+2.0 to +2.0) | +2.5 (+2.5 to +2.5) | aqe, 2: 51.0 / 90.0 | +1.0 (+1.0 to +1.0)"
    assert against(sweep).splitlines()[2] == f"| products | 50.0 / 90.0 | 52.0 / 92.5 | {gains} | 52.0, 54.0 |"


def test_figures_are_measured_once_for_what_they_are_of(tmp_path: Path) -> None:
    kept, asked = Kept(tmp_path / "figures"), list[str]()

    def measure(key: str) -> Figures:
        asked.append(key)
        return figures(len(key), 1.0)

    found = [kept.figures(key, partial(measure, key)) for key in ("a", "bb", "a")]
    assert [one.aps[0] for one in found] == [1, 2, 1] and asked == ["a", "bb"]
    assert [kept.number("c", lambda: 0.5), kept.number("c", lambda: 0.7)] == [0.5, 0.5]
    assert [file.suffix for file in (tmp_path / "figures").iterdir()] == [".npz"] * 3


def test_networks_are_told_apart_by_their_weights() -> None:
    one, other = (RelationalLAttQE.untrained(Sizes(channels=16), seed=seed) for seed in (0, 1))
    assert digest(one) == digest(one.copy()) != digest(other)


def strong(seed: int) -> RelationalLAttQE:
    """A network whose weights are not 0."""
    network = RelationalLAttQE.untrained(Sizes(channels=16), seed=seed)
    with torch.no_grad():
        for module in (network.strength, network.subtract):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(seed))
    return network


def test_databases_are_augmented_as_if_the_query_were_not_in_them(searched: Searched, tmp_path: Path) -> None:
    network = strong(2)
    rivals = {(name, both): 4 for name in RIVALS for both in (False, True)}
    chosen = Tuned(lattdba=Recipe(method="lattqe", neighbours=5, parameter=0.3), rivals=rivals)
    rows = {one.name: one for one in in_databases(searched, network, chosen, Kept(tmp_path))}
    assert [name for name in rows if "lattdba" in name] == [
        "lattdba 48, T 1",
        "lattdba 48, T 1, then lattqe 64",
        "lattdba 4, T 0.3",
        "lattdba 4, T 0.3, then lattqe 64",
        "lattdba 5, T 0.3",
        "lattdba 5, T 0.3, then lattqe 64",
    ]

    def weigh(queries: Vectors, near: Vectors) -> Vectors:
        with torch.no_grad():
            tokens = torch.from_numpy(np.concatenate([queries[:, None], near], axis=1))
            return np.asarray(network.weights(tokens, torch.ones(near.shape[:2], dtype=torch.bool))[0][:, 1:])

    for row in (0, 21):
        others = np.delete(searched.database, row, axis=0)
        database = augmented(others, "lattqe", 5, parameter=0.3, attention=weigh, threads=1)
        right = np.delete(searched.relevant[row], row)[np.argsort(-(database @ searched.queries[row]), kind="stable")]
        expected = average_precision(np.flatnonzero(right), positives=7)
        assert rows["lattdba 5, T 0.3"].tuned.aps[row] == pytest.approx(100 * expected)
    assert rows["none"].tuned.aps == pytest.approx(searched.by(None, 0).aps)
    assert rows["lattqe 64"].tuned.aps == pytest.approx(searched.by(by_network(network), 64).aps)
    best = rows["adba, then aqe 4"]
    assert best.best is not None and best.best.aps.mean() >= best.tuned.aps.mean()


def test_numbers_are_tuned_on_what_networks_did_not_learn_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 8)
    vectors = unit((rng.standard_normal((12, 16))[labels] + 0.8 * rng.standard_normal((96, 16))).astype(np.float32))
    held = [(strong(part), mixtures([[Kind(vectors, labels)]], part=part)[1]) for part in range(PARTS)]
    episodes = [one.draw(np.random.default_rng(0)) for _, one in held]
    found = tuned(held, episodes, Kept(tmp_path))
    assert found.lattdba.neighbours in OF_LATTDBA and found.lattdba.parameter in TEMPERATURES
    again = tuned(held, episodes, Kept(tmp_path))
    assert again == found and set(found.rivals) == {(name, both) for name in RIVALS for both in (False, True)}


def test_how_far_the_papers_network_came_is_said() -> None:
    rows = [CurveRow(epoch=0, step=0, validation=37.0)]
    rows += [CurveRow(epoch=one, step=50 * one, validation=60.0 - one) for one in (1, 2)]
    told = _how_far(rows, 100)
    assert "100 of 5,000 steps; judged as after 50, validation mAP 59.0" in told and told.endswith("37.0, 59.0, 58.0.")
