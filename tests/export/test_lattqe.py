import torch

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.lattqe import LAttQE
from landseer.export.models.pooling import l2n

SIZES = Sizes(channels=64, neighbours=12)


@torch.no_grad()
def run(query: torch.Tensor, neighbours: torch.Tensor, mask: torch.Tensor):  # type: ignore[no-untyped-def]
    return LAttQE.untrained(SIZES, seed=5)(query, neighbours, mask)


def inputs(k: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return l2n(torch.randn(2, 64, generator=generator)), l2n(torch.randn(2, k, 64, generator=generator))


def test_padding_changes_nothing() -> None:
    query, neighbours = inputs(5)
    short = run(query, neighbours, torch.ones(2, 5, dtype=torch.bool))
    padding = torch.full((2, 4, 64), 7.0)
    mask = torch.tensor([[True] * 5 + [False] * 4] * 2)
    long = run(query, torch.cat([neighbours, padding], dim=1), mask)
    torch.testing.assert_close(long.expanded, short.expanded)
    torch.testing.assert_close(long.weights[:, :6], short.weights)
    assert (long.weights[:, 6:] == 0).all()


def test_no_neighbour_gives_the_query_back() -> None:
    query, neighbours = inputs(3)
    got = run(query, neighbours, torch.zeros(2, 3, dtype=torch.bool))
    torch.testing.assert_close(got.expanded, query, atol=1e-5, rtol=0)


def test_the_query_weighs_one_and_the_expansion_has_unit_norm() -> None:
    query, neighbours = inputs(12)
    got = run(query, neighbours, torch.ones(2, 12, dtype=torch.bool))
    torch.testing.assert_close(got.weights[:, 0], torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(got.expanded.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    tokens = torch.cat([query[:, None], neighbours], dim=1)
    torch.testing.assert_close(got.expanded, l2n((got.weights[..., None] * tokens).sum(1)))


def test_seeding_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    first, again = (LAttQE.untrained(SIZES, seed=5).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
