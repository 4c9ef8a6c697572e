"""A live index with a main index, tombstones and exchanges: answers are those of brute force over what is there."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from plain_main import PlainMain, RoughMain

from landseer.ensemble.index.engines import FaissExact
from landseer.ensemble.index.live_index import LiveIndex
from landseer.ensemble.index.living_main import LivingMain
from landseer.ensemble.index.selection import Selection

D = 24
NONE, NO_ROWS = np.empty(0, np.int64), np.empty((0, D))


class Truth:
    """What a store would hold: vectors by key."""

    def __init__(self, seed, subjects=60):
        self.draws = np.random.default_rng(seed)
        rows = self.draws.standard_normal((subjects, D))
        # Few distinct vectors, so that ties are common.
        self.subjects = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        self.held, self.newest = {}, 0

    def add(self, count):
        keys = np.arange(self.newest + 1, self.newest + 1 + count)
        # Some sequence numbers are those of deletions.
        self.newest += count + 1
        vectors = self.subjects[self.draws.integers(0, len(self.subjects), count)]
        self.held |= dict(zip(keys.tolist(), vectors, strict=True))
        return keys, vectors

    def remove(self, count):
        gone = self.draws.permutation(list(self.held))[:count].astype(np.int64)
        for key in gone.tolist():
            del self.held[key]
        return gone

    def stored(self, keys):
        return np.array([self.held.get(key, np.zeros(D)) for key in keys.tolist()], np.float32).reshape(len(keys), -1)

    def main(self, kind, upto=None, number=1):
        keys = np.array([key for key in self.held if upto is None or key <= upto], np.int64)
        index = kind(keys, self.stored(keys).reshape(-1, D))
        upto = self.newest if upto is None else upto
        return LivingMain(index, self.stored, sequence=upto, longest=1.01, number=number)

    def best(self, query, k, allowed=None):
        keys = np.array(sorted(key for key in self.held if allowed is None or key in allowed), np.int64)
        scores = self.stored(keys).reshape(-1, D).astype(np.float64) @ query.astype(np.float64)
        order = np.argsort(-scores, kind="stable")[:k]
        return keys[order], scores[order].astype(np.float32)


async def agree(live, truth, *, ks=(1, 7, 60, 2000)):
    query = truth.draws.standard_normal(D).astype(np.float32)
    some = set(truth.draws.permutation([*truth.held, 99_999])[: len(truth.held) // 3].tolist())
    for selected in (None, some):
        selection = None if selected is None else Selection.of(np.array(sorted(selected), np.int64))
        for hits, k in zip(await asyncio.gather(*(live.search(query, k, selection) for k in ks)), ks, strict=True):
            keys, scores = truth.best(query, k, selected)
            np.testing.assert_array_equal(hits.keys, keys)
            np.testing.assert_allclose(hits.scores, scores, rtol=1e-6, atol=1e-7)
    assert live.size == len(truth.held)


@pytest.mark.parametrize("seed", range(4))
async def test_main_delta_and_tombstones_are_brute_force_through_changes_and_exchanges(seed):
    truth = Truth(seed)
    truth.add(300)
    live = LiveIndex(FaissExact(D), main=truth.main(PlainMain))
    upto, main = None, None
    for step in range(24):
        keys, vectors = truth.add(int(truth.draws.integers(0, 20)))
        gone = truth.remove(int(truth.draws.integers(0, 25)))
        await live.apply(keys, vectors, gone)
        if step % 6 == 1:
            upto = await live.begin_exchange(FaissExact(D))
        elif step % 6 == 2:
            main = truth.main(PlainMain, upto, number=step)
        elif step % 6 == 4:
            await live.exchange(main)
            # Only what came after the exchange began is beside the new main index.
            assert live.main is main and live.added <= len([key for key in truth.held if key > upto])
            assert live.tombstones == main.tombstones > 0
        await agree(live, truth)
    live.close()


async def test_everything_removed_and_added_again():
    truth = Truth(1)
    truth.add(200)
    live = LiveIndex(FaissExact(D), main=truth.main(PlainMain))
    await live.apply(NONE, NO_ROWS, truth.remove(200))
    assert live.size == 0 and live.tombstones == 200
    assert len((await live.search(np.ones(D), 5)).keys) == 0
    await live.apply(*truth.add(5), NONE)
    await agree(live, truth)
    # Keys that are not there, twice, and those that were removed before, count once.
    await live.apply(NONE, NO_ROWS, [1, 1, 777, 2])
    assert live.tombstones == 200 and live.size == 5
    live.close()


async def test_an_exchange_that_was_abandoned_leaves_everything_as_it_was():
    truth = Truth(2)
    live = LiveIndex(FaissExact(D))
    await live.apply(*truth.add(50), NONE)
    upto = await live.begin_exchange(FaissExact(D))
    assert upto == 50
    await live.apply(*truth.add(10), truth.remove(5))
    await live.abandon_exchange()
    await live.apply(*truth.add(10), truth.remove(5))
    await agree(live, truth)
    with pytest.raises(RuntimeError, match="no exchange has begun"):
        await live.exchange(truth.main(PlainMain))
    await agree(live, truth)
    live.close()


async def test_scores_of_an_approximate_main_index_are_those_of_brute_force():
    truth = Truth(3)
    truth.add(400)
    live = LiveIndex(FaissExact(D), main=truth.main(RoughMain))
    await live.apply(*truth.add(30), truth.remove(100))
    found, wanted = 0, 0
    for query in truth.draws.standard_normal((20, D)).astype(np.float32):
        hits = await live.search(query, 10)
        exact = dict(zip(*(one.tolist() for one in truth.best(query, 1000)), strict=True))
        assert len(hits.keys) == 10 and hits.scores.tolist() == [exact[key] for key in hits.keys.tolist()]
        assert sorted(hits.scores.tolist(), reverse=True) == hits.scores.tolist()
        found += len(set(hits.keys.tolist()) & set(truth.best(query, 10)[0].tolist()))
        wanted += 10
    # Among 32 candidates by signs alone.
    assert found >= 0.5 * wanted
    live.close()


async def test_what_the_store_lost_before_the_index_heard_of_it_is_no_hit():
    truth = Truth(4)
    truth.add(40)
    live = LiveIndex(FaissExact(D), main=truth.main(PlainMain))
    gone = set(truth.remove(30).tolist())
    hits = await live.search(np.ones(D), 20)
    assert len(hits.keys) == 10 and not gone & set(hits.keys.tolist())
    truth.remove(10)
    assert len((await live.search(np.ones(D), 20)).keys) == 0
    live.close()


def test_only_the_living_of_a_version_are_kept():
    truth = Truth(5)
    truth.add(100)
    main = truth.main(PlainMain)
    living = np.array([3, 50, 51, 99, 1000], np.int64)
    main.keep(living)
    assert (main.size, main.tombstones) == (4, 96)
    keys, _ = main.search(np.ones((2, D), np.float32), 50)
    assert keys.shape == (2, 4) and set(keys.ravel().tolist()) == {3, 50, 51, 99}
    main.keep(np.empty(0, np.int64))
    assert main.size == 0
