import subprocess
import sys
import threading

import faiss
import numpy as np
import pytest

from landseer.ensemble.index.engines import ENGINES, FaissExact
from landseer.ensemble.index.selection import Selection

DIMENSION = 24


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param](DIMENSION, threads=2)


def unit(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_names():
    assert all(engine(DIMENSION).name == name for name, engine in ENGINES.items())


@pytest.mark.parametrize("queries", [1, 2, 5, 64])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_congruence_with_exact_search(engine, queries, k):
    vectors, keys = unit(300), np.random.default_rng(1).permutation(1000)[:300].astype(np.int64)
    engine.add(keys, vectors)
    asked = unit(queries, seed=2)
    found, scores = engine.search(asked, k)
    exact = asked.astype(np.float64) @ vectors.T
    order = np.argsort(-exact, axis=1)[:, :k]
    assert found.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(found, keys[order])
    np.testing.assert_allclose(scores, np.take_along_axis(exact, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("queries", [1, 7])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_congruence_among_selected_keys(engine, share, queries):
    draws = np.random.default_rng(4)
    vectors, keys = unit(3000), draws.permutation(9000)[:3000].astype(np.int64)
    engine.add(keys, vectors)
    gone = keys[::7]
    engine.remove(gone)
    chosen = draws.choice(keys, int(share * len(keys)), replace=False)
    asked = unit(queries, seed=2)
    # The selection may name keys that are gone, or never were.
    selection = Selection.of(np.append(chosen, 20_000))
    there = np.flatnonzero(np.isin(keys, chosen) & ~np.isin(keys, gone))
    exact = asked.astype(np.float64) @ vectors[there].T
    for k in (5, len(there), 4000):
        found, scores = engine.search(asked, k, selection)
        order = np.argsort(-exact, axis=1)[:, :k]
        np.testing.assert_array_equal(found, keys[there][order])
        np.testing.assert_allclose(scores, np.take_along_axis(exact, order, axis=1), atol=1e-6)
    # The same selection after a change.
    engine.add(gone, vectors[::7])
    assert set(engine.search(asked, 4000, selection)[0][0].tolist()) == set(chosen.tolist())
    engine.remove(chosen)
    assert engine.search(asked, 5, selection)[0].shape == (queries, 0)


def test_a_selection_far_from_some_queries_is_searched_all_the_same():
    """Many queries share a search of all vectors, in which those find too few that are allowed."""
    engine, vectors, asked = FaissExact(DIMENSION, threads=2), unit(3000), unit(5, seed=2)
    engine.add(np.arange(3000), vectors)
    far = np.sort(np.argsort(vectors @ asked[0])[:2000])
    found, scores = engine.search(asked, 20, Selection.of(far))
    exact = asked.astype(np.float64) @ vectors[far].T
    np.testing.assert_array_equal(found, far[np.argsort(-exact, axis=1)[:, :20]])
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :20], atol=1e-6)


def test_nothing_in_it(engine):
    keys, scores = engine.search(unit(3), 5)
    assert keys.shape == scores.shape == (3, 0)
    engine.remove(np.array([1, 2]))
    assert engine.size == 0


def test_k_beyond_the_size_and_no_query(engine):
    engine.add(np.array([5, 6]), unit(2))
    assert engine.search(unit(4), 100)[0].shape == (4, 2)
    assert engine.search(unit(0), 3)[0].shape == (0, 2)


def test_a_key_added_again_replaces(engine):
    first, second = unit(2)
    engine.add(np.array([7, 8]), np.stack([first, first]))
    engine.add(np.array([7]), second[None])
    assert engine.size == 2
    np.testing.assert_array_equal(engine.vectors(np.array([7, 8])), [second, first])
    keys, _ = engine.search(second[None], 5)
    assert sorted(keys[0].tolist()) == [7, 8] and keys[0, 0] == 7


def test_of_equal_keys_the_last_counts(engine):
    rows = unit(4)
    engine.add(np.array([3, 9, 3, 4]), rows)
    assert engine.size == 3
    np.testing.assert_array_equal(engine.vectors(np.array([3, 9, 4])), rows[[2, 1, 3]])


def test_removed_is_not_found(engine):
    rows, keys = unit(50), np.arange(50) * 3
    engine.add(keys, rows)
    engine.remove(np.array([0, 3, 3, 1000]))
    assert engine.size == 48
    assert not {0, 3} & set(engine.search(rows[:2], 50)[0].ravel().tolist())
    with pytest.raises(KeyError, match="1 keys are not in the index, such as 3"):
        engine.vectors(np.array([6, 3]))


def test_vectors_come_back_bit_for_bit(engine):
    rows = unit(10)
    engine.add(np.arange(10), rows)
    assert engine.vectors(np.arange(10)[::-1]).tobytes() == rows[::-1].tobytes()
    assert engine.vectors(np.empty(0, np.int64)).shape == (0, DIMENSION)


@pytest.mark.parametrize(
    ("keys", "shape", "message"),
    [
        ([1], (1, 5), "rows of 24"),
        ([1, 2], (1, DIMENSION), "one key for each"),
        ([-1], (1, DIMENSION), "got key -1; expected 0 or more"),
    ],
)
def test_bad_input_is_rejected(engine, keys, shape, message):
    with pytest.raises(ValueError, match=message):
        engine.add(np.array(keys), np.ones(shape, np.float32))
    assert engine.size == 0


def test_threads_are_set_in_the_thread_that_searches():
    engine = FaissExact(DIMENSION, threads=1)
    engine.add(np.arange(3), unit(3))
    seen = []
    caller = threading.Thread(target=lambda: (engine.search(unit(1), 1), seen.append(faiss.omp_get_max_threads())))
    caller.start()
    caller.join()
    assert seen == [1]


def test_any_sequence_of_changes_leaves_what_a_dictionary_holds(engine):
    rng, plain, rows = np.random.default_rng(0), {}, unit(5000, seed=3)
    for step in range(200):
        some = rng.choice(120, rng.integers(1, 30)).astype(np.int64)
        if step % 3:
            vectors = rows[rng.integers(0, len(rows), len(some))]
            engine.add(some, vectors)
            plain |= dict(zip(some.tolist(), vectors, strict=True))
        else:
            engine.remove(some)
            plain = {key: value for key, value in plain.items() if key not in set(some.tolist())}
        assert engine.size == len(plain)
        keys = np.array(sorted(plain), np.int64)
        if len(keys):
            np.testing.assert_array_equal(engine.vectors(keys), [plain[key] for key in keys.tolist()])
            found, scores = engine.search(rows[:1], len(keys))
            assert sorted(found[0].tolist()) == keys.tolist()
            exact = [float(plain[key] @ rows[0]) for key in found[0].tolist()]
            np.testing.assert_allclose(scores[0], exact, atol=1e-6)
    engine.remove(np.array(list(plain), np.int64))
    assert engine.size == 0 and engine.search(rows[:1], 3)[0].shape == (1, 0)


def test_removing_a_vector_moves_only_the_last_one():
    """All that follow it would be 680 MB at 133,000 pictures, while no search is answered."""
    engine, rows = FaissExact(DIMENSION), unit(6)
    engine.add(np.arange(10, 16), rows)
    engine.remove(np.array([11]))
    flat = faiss.rev_swig_ptr(engine._index.get_xb(), 5 * DIMENSION).reshape(5, DIMENSION)
    np.testing.assert_array_equal(flat, rows[[0, 5, 2, 3, 4]])
    engine.remove(np.array([10, 14, 15, 99]))
    assert engine._index.ntotal == engine.size == 2
    np.testing.assert_array_equal(engine.vectors(np.array([12, 13])), rows[[2, 3]])


def test_room_made_at_once_changes_no_answer(engine):
    vectors, keys = unit(50), np.arange(50)
    engine.reserve(40)
    assert engine.size == 0 and engine.search(vectors[:1], 3)[0].shape == (1, 0)
    for start in range(0, 50, 10):
        engine.add(keys[start : start + 10], vectors[start : start + 10])
    np.testing.assert_array_equal(engine.search(vectors, 1)[0][:, 0], keys)
    engine.reserve(1000)
    assert engine.size == 50


def test_loading_into_reserved_room_takes_no_second_copy():
    """In a process of its own, whose peak nothing else has raised."""
    count, dimension = 60_000, 512
    script = f"""
import resource, numpy as np
from landseer.ensemble.index.engines import FaissExact
engine = FaissExact({dimension}, threads=1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
engine.reserve({count})
for start in range(0, {count}, 1000):
    engine.add(np.arange(start, start + 1000), np.ones((1000, {dimension}), np.float32))
print(peak() - before)
"""
    grown = int(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert grown < 1.25 * count * dimension * 4
