import threading

import faiss
import numpy as np
import pytest

from landseer.ensemble.index.engines import ENGINES, FaissExact

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
