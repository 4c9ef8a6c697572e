"""Every method, as served, with few, equal or zero neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import PLAIN

from landseer.ensemble.api.request import EXPANSIONS
from landseer.ensemble.search.expansion.methods import DEFAULTS, DQE, LATTQE, VERIFIED, classical
from landseer.v1 import index_pb2, search_pb2

CLASSICAL = sorted(set(DEFAULTS) - {LATTQE})
NUMBERS = {name: number for number, name in EXPANSIONS.items()}


def expansion(name, neighbours):
    return search_pb2.Expansion(method=NUMBERS[name], neighbours=neighbours, allow_untrained=True)


def test_every_method_of_the_api_has_a_name():
    known = {
        number for name, number in search_pb2.ExpansionMethod.items() if not name.endswith(("UNSPECIFIED", "NONE"))
    }
    assert EXPANSIONS.keys() == known and set(EXPANSIONS.values()) == {*DEFAULTS, VERIFIED}
    assert NUMBERS["rank-curve"] == search_pb2.EXPANSION_METHOD_RANK_CURVE == 8


async def found(landseer, image, name, neighbours, **options):
    options = {"image": image, "expansion": expansion(name, neighbours), "top_k": 20} | PLAIN | options
    answer = await landseer.search.Search(search_pb2.SearchRequest(**options))
    assert not answer.degradations
    return answer.hits


async def descriptor(landseer, id):
    got = await landseer.index.Get(index_pb2.GetRequest(id=id, include_vectors=True))
    return np.array(got.descriptor, np.float32)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
async def test_more_neighbours_than_pictures(landseer, picture, name):
    await landseer.put(**{f"p{seed}": picture(seed) for seed in range(4)})
    some, all_ = [await found(landseer, picture(1), name, neighbours) for neighbours in (4, 60)]
    assert sorted(hit.id for hit in all_) == ["p0", "p1", "p2", "p3"]
    assert [(hit.id, hit.score) for hit in some] == [(hit.id, hit.score) for hit in all_]
    assert len(await found(landseer, picture(1), name, 2, top_k=1)) == 1


@pytest.mark.parametrize("name", sorted(DEFAULTS))
async def test_an_empty_index_and_one_with_only_the_query(landseer, picture, name):
    assert not await found(landseer, picture(1), name, 5)
    await landseer.put(only=picture(1))
    assert [hit.id for hit in await found(landseer, picture(1), name, 5)] == ["only"]
    request = search_pb2.SearchRequest(id="only", expansion=expansion(name, 5), **PLAIN)
    assert not (await landseer.search.Search(request)).hits


@pytest.mark.parametrize("name", CLASSICAL)
async def test_copies_of_one_picture(landseer, picture, name):
    await landseer.put(**{f"copy{number}": picture(1) for number in range(6)}, other=picture(2))
    hits = await found(landseer, picture(1), name, 5)
    assert [hit.id for hit in hits] == [*(f"copy{number}" for number in range(6)), "other"]
    assert len({hit.score for hit in hits[:6]}) == 1
    if name != DQE:  # which turns away from the other one, too
        assert hits[0].score == pytest.approx(1, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(CLASSICAL), k=st.integers(0, 12), lowest=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
def test_every_method_gives_a_unit_vector(name, k, lowest, seed):
    draws = np.random.default_rng(seed)
    # Copies, opposites and zeros of a few vectors.
    few = draws.normal(size=(3, 6))
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    pool = np.concatenate([few, -few, np.zeros((1, 6))]).astype(np.float32)
    query, neighbours, far = pool[0], pool[draws.integers(0, 7, k)], pool[draws.integers(0, 7, lowest)]
    expanded = classical(name, query, neighbours, alpha=float(draws.uniform(0, 5)), lowest=far)
    assert expanded.shape == (6,) and np.linalg.norm(expanded) == pytest.approx(1, abs=1e-5)
    if k == 0:
        np.testing.assert_allclose(expanded, query, atol=1e-6)
