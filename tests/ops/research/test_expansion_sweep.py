import numpy as np
import pytest
import torch

from landseer.ensemble.evaluation import Evaluation, Truth, evaluate
from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.training.episodes import unit
from landseer.export.training.expansion import expand_all
from landseer.ops.evaluate.head_vectors import Vectors
from landseer.ops.evaluate.methods import Method, rankings
from landseer.ops.research.expansion_sweep import COUNTS, Judged, Piece, _short
from landseer.ops.research.searched import Figures, Searched, by_network, by_rule, by_svm, of_labels

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


def test_what_costs_too_much_is_marked(searched: Searched) -> None:
    def figures(ap: float, first: float) -> Figures:
        return Figures(aps=np.full(40, ap), first=np.full(40, first))

    def rows(first: float) -> dict[str, dict[str, list[Figures]]]:
        found = {"aqe": [figures(49.8, first), *[figures(51, 90)] * 6], "lattqe": [figures(52, 90)] * 7}
        return {"products": {"none": [figures(50, 90)] * 7, **found}}

    pieces = [Piece(searched, RelationalLAttQE.untrained(Sizes(channels=16), seed=0))]
    tuned = {"aqe": 4, "lattqe": 64}
    spread = {"products": [50.0, 52.0]}
    told = [_short(Judged({"products": pieces}, rows(first), tuned, spread)) for first in (89.6, 89.4)]
    gains = "+1.0 (+1.0 to +1.0) | +2.0 (+2.0 to +2.0) | aqe: +1.0 (+1.0 to +1.0)"
    assert f"| products | 50.0 | {gains} | 50.0 to 52.0 mAP |" in told[0]
    assert "| | 90.0 first | -0.2, -0.4 | +2.0, +0.0 | | |" in told[0]
    assert "| | 90.0 first | **-0.2, -0.6** | +2.0, +0.0 | | |" in told[1]
    assert len(COUNTS) == 7
