from functools import partial

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
from landseer.ops.research.expansion_sweep import (
    COUNTS,
    Figures,
    Piece,
    Searched,
    _short,
    by_network,
    by_rule,
    of_labels,
)

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
    found = searched.by(partial(by_rule, name, alpha), 4)
    expected = evaluated(searched, Method(name=name, neighbours=4, alpha=alpha))
    np.testing.assert_allclose(found.aps, 100 * expected.aps)
    np.testing.assert_allclose(found.first, 100 * expected.precisions[:, 0])


def test_a_network_expands_as_in_an_evaluation_and_the_gated_form_takes_nothing_away(searched: Searched) -> None:
    network = RelationalLAttQE.untrained(Sizes(channels=16), seed=0)
    with torch.no_grad():
        for module in (network.strength, network.subtract):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    found = searched.by(partial(by_network, network, None, False), 6)
    np.testing.assert_allclose(found.aps, 100 * evaluated(searched, Method(name="lattqe", neighbours=6), network).aps)
    near = searched.database[searched.ranked(searched.queries, 6)]
    plain, gated = (by_network(network, None, gate, searched.queries, near) for gate in (False, True))
    assert (plain < 0).any() and (gated >= 0).all()
    kept = gated > 0
    np.testing.assert_array_equal(gated[kept], plain[kept])


def test_what_costs_too_much_is_marked(searched: Searched) -> None:
    def figures(ap: float, first: float) -> Figures:
        return Figures(aps=np.full(40, ap), first=np.full(40, first))

    def rows(first: float) -> dict[str, dict[str, list[Figures]]]:
        return {"products": {"none": [figures(50, 90)] * 7, "aqe": [figures(49.8, first), *[figures(51, 90)] * 6]}}

    pieces = [Piece(searched, RelationalLAttQE.untrained(Sizes(channels=16), seed=0))]
    told = [
        _short({"products": pieces}, rows(first), {"aqe": (4, 1.0)}, {"products": [50, 52]}) for first in (89.6, 89.4)
    ]
    assert "| products | 50.0 | +1.0 (+1.0 to +1.0) | 50.0 to 52.0 mAP |" in told[0]
    assert "| | 90.0 first | -0.2, -0.4 | |" in told[0]
    assert "| | 90.0 first | **-0.2, -0.6** | |" in told[1]
    assert len(COUNTS) == 7
