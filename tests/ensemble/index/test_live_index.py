import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landseer.ensemble.errors import Overloaded
from landseer.ensemble.index import live_index
from landseer.ensemble.index.engines import ENGINES
from landseer.ensemble.index.live_index import BATCH, LiveIndex, inner_products, nearest
from landseer.ensemble.index.selection import Selection

NONE = np.empty(0, np.int64)


def unit(count, dimension=32, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def brute_force(keys, vectors, query, k):
    """Keys, best first, of a full sort; rows in the order of their keys."""
    order = np.argsort(keys)
    scores = vectors[order].astype(np.float64) @ query.astype(np.float64)
    best = np.argsort(-scores, kind="stable")[:k]
    return keys[order][best], scores[best].astype(np.float32)


class Watched:
    """An engine that counts calls and can be blocked."""

    def __init__(self, dimension=32):
        self.inner = ENGINES["faiss-exact"](dimension)
        self.name, self.exact = self.inner.name, self.inner.exact
        self.calls = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()

    @property
    def dimension(self):
        return self.inner.dimension

    @property
    def size(self):
        return self.inner.size

    def _note(self, *call):
        self.gate.wait(10)
        self.threads.add(threading.current_thread().name)
        self.calls.append(call)

    def reserve(self, count):
        self.inner.reserve(count)

    def add(self, keys, vectors):
        self._note("add", len(keys))
        self.inner.add(keys, vectors)

    def remove(self, keys):
        self._note("remove", len(keys))
        self.inner.remove(keys)

    def search(self, queries, k, selection=None):
        self._note("search", len(queries), k)
        return self.inner.search(queries, k, selection)

    def vectors(self, keys):
        return self.inner.vectors(keys)


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def index(watched):
    live = LiveIndex(watched)
    yield live
    watched.gate.set()
    live.close()


async def test_equal_to_brute_force_hit_for_hit(index):
    vectors, keys = unit(2000), np.random.default_rng(5).permutation(9000)[:2000].astype(np.int64)
    await index.apply(keys, vectors, NONE)
    queries = unit(40, seed=9).astype(np.float32)
    found = await asyncio.gather(*(index.search(query, 25) for query in queries))
    for query, hits in zip(queries, found, strict=True):
        expected, scores = brute_force(keys, vectors, query, 25)
        np.testing.assert_array_equal(hits.keys, expected)
        np.testing.assert_array_equal(hits.scores, scores)
        assert hits.keys.dtype == np.int64 and hits.scores.dtype == np.float32


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.99])
async def test_a_selection_is_brute_force_among_its_keys(index, share):
    # Each vector four times, so that ties cross the end of the candidates.
    draws = np.random.default_rng(8)
    vectors, keys = unit(500)[np.arange(2000) % 500], draws.permutation(9000)[:2000].astype(np.int64)
    await index.apply(keys, vectors, NONE)
    chosen = draws.choice(2000, int(share * 2000), replace=False)
    selection = Selection.of(keys[chosen])
    for query in unit(3, seed=9).astype(np.float32):
        for k in (1, 25, len(chosen), 3000):
            hits = await index.search(query, k, selection)
            expected, scores = brute_force(keys[chosen], vectors[chosen], query, k)
            np.testing.assert_array_equal(hits.keys, expected)
            np.testing.assert_array_equal(hits.scores, scores)
    assert len((await index.search(query, 5, Selection.of(NONE))).keys) == 0


async def test_searches_share_a_call_only_with_those_of_the_same_selection(index, watched):
    await index.apply(np.arange(200), unit(200), NONE)
    query, even, odd = unit(1, seed=1)[0], Selection.of(np.arange(0, 200, 2)), Selection.of(np.arange(1, 200, 2))
    watched.gate.clear()
    busy = asyncio.ensure_future(index.search(query, 3))
    await asyncio.sleep(0.05)
    mixed = [asyncio.ensure_future(index.search(query, 5, some)) for some in [even, None, odd] * 4]
    gone = asyncio.ensure_future(index.apply(NONE, np.empty((0, 32)), np.arange(100)))
    after = asyncio.ensure_future(index.search(query, 200, even))
    await asyncio.sleep(0.05)
    watched.gate.set()
    found = await asyncio.gather(*mixed)
    last, *_ = await asyncio.gather(after, busy, gone)
    assert [call[1] for call in watched.calls if call[0] == "search"] == [1, 4, 4, 4, 1]
    for hits, parity in zip(found, [{0}, {0, 1}, {1}] * 4, strict=True):
        assert set((hits.keys % 2).tolist()) == parity and len(hits.keys) == 5
    assert sorted(last.keys.tolist()) == list(range(100, 200, 2))


@pytest.mark.parametrize("dimension", [32, 37])
async def test_exact_duplicates_come_in_the_order_of_their_keys(dimension):
    index = LiveIndex(ENGINES["faiss-exact"](dimension))
    # 500 pictures of ten subjects: far more equal scores than one candidate list holds, added in a jumble.
    subjects = unit(10, dimension)
    keys = np.random.default_rng(1).permutation(500).astype(np.int64)
    vectors = subjects[keys % 10]
    await index.apply(keys, vectors, NONE)
    for k in (1, 3, 60, 499, 1000):
        for query in (subjects[3].astype(np.float32), unit(1, dimension, seed=4)[0].astype(np.float32)):
            hits = await index.search(query, k)
            expected, _ = brute_force(keys, vectors, query, k)
            np.testing.assert_array_equal(hits.keys, expected)
    index.close()


async def test_neighbours_a_bit_apart_are_told_apart(index):
    # Vectors whose scores differ by less than fp32 can hold.
    base = unit(1)[0].astype(np.float32)
    vectors = np.tile(base, (400, 1)).astype(np.float16)
    smallest = np.abs(vectors[0]).argmin()
    vectors[:, smallest] = (vectors[0, smallest].view(np.uint16) + np.arange(400, dtype=np.uint16)).view(np.float16)
    keys = np.random.default_rng(2).permutation(400).astype(np.int64)
    await index.apply(keys, vectors, NONE)
    hits = await index.search(base, 20)
    np.testing.assert_array_equal(hits.keys, brute_force(keys, vectors, base, 20)[0])


async def test_the_same_bytes_alone_or_batched(index, watched):
    vectors = unit(3000)
    await index.apply(np.arange(3000), vectors, NONE)
    queries = unit(30, seed=3).astype(np.float32)
    alone = [await index.search(query, 10) for query in queries]
    watched.gate.clear()
    waiting = [asyncio.ensure_future(index.search(query, k)) for query in queries for k in (10, 77)]
    await asyncio.sleep(0.05)
    watched.gate.set()
    together = (await asyncio.gather(*waiting))[::2]
    assert any(call[0] == "search" and call[1] > 1 for call in watched.calls)
    for one, other in zip(alone, together, strict=True):
        assert one.keys.tobytes() == other.keys.tobytes() and one.scores.tobytes() == other.scores.tobytes()


async def test_waiting_searches_are_one_call_of_at_most_64(index, watched):
    await index.apply(np.arange(200), unit(200), NONE)
    queries = unit(BATCH + 20, seed=1).astype(np.float32)
    watched.gate.clear()
    first = asyncio.ensure_future(index.search(queries[0], 3))
    await asyncio.sleep(0.05)  # the engine is busy with it
    rest = [asyncio.ensure_future(index.search(query, 5 + i % 3)) for i, query in enumerate(queries)]
    await asyncio.sleep(0.05)
    watched.gate.set()
    hits = await asyncio.gather(first, *rest)
    assert [len(one.keys) for one in hits] == [3, *(5 + i % 3 for i in range(len(queries)))]
    assert [call[1] for call in watched.calls if call[0] == "search"] == [1, BATCH, 20]


async def test_cancelled_searches_are_not_run(index, watched):
    await index.apply(np.arange(200), unit(200), NONE)
    query = unit(1, seed=1)[0].astype(np.float32)
    watched.gate.clear()
    busy = asyncio.ensure_future(index.search(query, 3))
    await asyncio.sleep(0.05)
    gone = [asyncio.ensure_future(index.search(query, 100)) for _ in range(10)]
    stays = asyncio.ensure_future(index.search(query, 4))
    await asyncio.sleep(0.05)
    for waiter in gone:
        waiter.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    watched.gate.set()
    assert len((await stays).keys) == 4 and len((await busy).keys) == 3
    searches = [call for call in watched.calls if call[0] == "search"]
    assert [call[1] for call in searches] == [1, 1] and searches[1][2] < 100


async def test_more_searches_than_may_wait_are_refused(index, watched, monkeypatch):
    monkeypatch.setattr(live_index, "MOST_WAITING", 2)
    await index.apply(np.arange(200), unit(200), NONE)
    query = unit(1, seed=1)[0].astype(np.float32)
    watched.gate.clear()
    waiting = [asyncio.ensure_future(index.search(query, 3)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 searches already wait for the index"):
        await index.search(query, 3)
    watched.gate.set()
    await asyncio.gather(*waiting)
    assert index.waiting == 0
    assert len((await index.search(query, 3)).keys) == 3


async def test_a_change_completes_even_if_its_caller_is_cancelled(index, watched):
    watched.gate.clear()
    held = asyncio.ensure_future(index.apply(np.arange(3), unit(3), NONE))
    cut = asyncio.ensure_future(index.apply(np.arange(3, 8), unit(5), NONE))
    await asyncio.sleep(0.05)
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    watched.gate.set()
    await held
    await index.apply(NONE, np.empty((0, 32)), NONE)
    assert index.size == 8


async def test_a_search_sees_the_changes_before_it_and_none_after(index):
    vectors = unit(10)
    query = vectors[0].astype(np.float32)
    await index.apply(np.arange(5), vectors[5:], NONE)
    before = asyncio.ensure_future(index.search(query, 20))
    change = asyncio.ensure_future(index.apply([77], vectors[:1], [0, 1]))
    after = asyncio.ensure_future(index.search(query, 20))
    await change
    assert sorted((await before).keys.tolist()) == [0, 1, 2, 3, 4]
    assert (await after).keys[0] == 77 and sorted((await after).keys.tolist()) == [2, 3, 4, 77]
    assert index.size == 4


async def test_a_record_replaced_within_one_change(index):
    await index.apply([1, 2], unit(2), [1])
    assert (await index.search(unit(1)[0], 5)).keys.tolist() == [2]


async def test_load_reports_on_the_event_loop(index, watched):
    batches = [(np.arange(i, i + 10), unit(10, seed=i)) for i in range(0, 50, 10)]
    loop_thread, seen = threading.current_thread(), []
    loaded = await index.load(iter(batches), lambda done: seen.append((done, threading.current_thread())))
    await asyncio.sleep(0)
    assert loaded == index.size == 50
    assert seen == [(done, loop_thread) for done in (10, 20, 30, 40, 50)]
    assert watched.threads == {"landseer-index"}


async def test_empty_and_small(index):
    assert len((await index.search(unit(1)[0], 10)).keys) == 0
    await index.apply([4], unit(1), NONE)
    assert (await index.search(unit(1)[0], 10)).keys.tolist() == [4]


async def test_a_zero_query_ranks_by_key(index):
    await index.apply(np.arange(300)[::-1], unit(300), NONE)
    hits = await index.search(np.zeros(32), 7)
    assert hits.keys.tolist() == list(range(7)) and not hits.scores.any()


@pytest.mark.parametrize(("query", "k"), [(np.full(32, np.nan), 3), (np.zeros((2, 32)), 3), (np.zeros(32), 0)])
async def test_impossible_searches_are_refused(index, query, k):
    with pytest.raises(ValueError, match="expected"):
        await index.search(query, k)


async def test_an_engine_that_fails_fails_its_callers_only(index, watched):
    await index.apply(np.arange(5), unit(5), NONE)
    watched.inner.search, search = None, watched.inner.search
    with pytest.raises(TypeError):
        await index.search(np.zeros(32), 3)
    watched.inner.search = search
    with pytest.raises(ValueError, match="one key for each"):
        await index.apply([1, 2, 3], unit(1), NONE)
    assert len((await index.search(unit(1)[0], 3)).keys) == 3


async def test_a_query_of_another_size_does_not_fail_its_neighbours(index, watched):
    await index.apply(np.arange(5), unit(5), NONE)
    watched.gate.clear()
    busy = asyncio.ensure_future(index.search(unit(1)[0], 3))
    await asyncio.sleep(0.05)
    odd, fine = (asyncio.ensure_future(index.search(np.ones(size), 3)) for size in (7, 32))
    await asyncio.sleep(0.05)
    watched.gate.set()
    results = await asyncio.gather(busy, odd, fine, return_exceptions=True)
    assert len(results[0].keys) == 3 and len(results[2].keys) == 3
    assert isinstance(results[1], ValueError)


async def test_close_ends_the_thread_after_answering():
    watched = Watched()
    index = LiveIndex(watched)
    await index.apply(np.arange(5), unit(5), NONE)
    waiting = asyncio.ensure_future(index.search(unit(1)[0], 3))
    await asyncio.sleep(0)
    index.close()
    index.close()
    assert len((await waiting).keys) == 3
    assert not index._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        await index.search(unit(1)[0], 3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), count=st.integers(1, 400), ks=st.lists(st.integers(1, 450), min_size=1, max_size=5)
)
def test_nearest_is_a_full_sort(seed, count, ks):
    draws = np.random.default_rng(seed)
    # Few distinct rows, so that ties are common.
    vectors = unit(max(1, count // 5), 16, seed)[draws.integers(0, max(1, count // 5), count)]
    keys = draws.permutation(10_000)[:count].astype(np.int64)
    engine = ENGINES["faiss-exact"](16)
    engine.add(keys, vectors.astype(np.float32))
    queries = unit(len(ks), 16, seed + 1).astype(np.float32)
    for query, k, hits in zip(queries, ks, nearest(engine, queries, ks, longest=1.01), strict=True):
        np.testing.assert_array_equal(hits.keys, brute_force(keys, vectors, query, k)[0])


@pytest.mark.parametrize("dimension", [1, 7, 37, 512, 1280, 2048])
def test_inner_products_do_not_depend_on_company(dimension):
    rows = np.random.default_rng(0).standard_normal((301, dimension)).astype(np.float16).astype(np.float32)
    query = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    whole = inner_products(rows, query)
    for start, stop in ((0, 1), (3, 5), (100, 131), (300, 301)):
        assert inner_products(rows[start:stop], query).tobytes() == whole[start:stop].tobytes()
    assert inner_products(np.asfortranarray(rows[::-1]), query)[::-1].tobytes() == whole.tobytes()
