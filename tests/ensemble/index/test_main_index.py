"""Main indexes against exact search: recall, filters, files."""

import threading
from pathlib import Path

import faiss
import numpy as np
import pytest

from landseer.ensemble.index import faiss_factory, faiss_index
from landseer.ensemble.index.faiss_index import INDEX, KEYS, SETTING, FaissIndex, main_index_of
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.live_index import inner_products, scores_of_enough
from landseer.ensemble.index.main_index import BuildStopped
from landseer.ensemble.index.selection import Selection

DIMENSION, COUNT, K = 64, 3000, 10
LEAST_RECALL = {
    ("Flat", 0, 1): 1.0,
    ("SQfp16", 0, 1): 1.0,
    ("SQ8", 0, 2): 0.99,
    ("HNSW16,SQ8", 64, 2): 0.98,
    ("PCA48,HNSW16,SQ8", 64, 6): 0.97,
    ("RR,IVF16,SQ8", 12, 2): 0.97,
    ("IVF16,RaBitQfs", 12, 25): 0.92,
    ("IVF16,RaBitQfs4", 12, 3): 0.97,
    ("IVF16,PQ32x4fs", 12, 5): 0.97,
    ("PCAR64,IVF1,PQ16x4fs,Refine(SQ8)", 400, 2): 0.98,
    ("IVF1,PQ16x4fs,Refine(SQ8)", 400, 2): 0.98,
}
SHARES = (0.001, 0.01, 0.1, 0.5, 0.99)


def drawn(seed=0):
    """Return keys with gaps, vectors fp16 in groups and of different norms, as augmented ones are, and queries."""
    draws = np.random.default_rng(seed)
    things = draws.standard_normal((COUNT // 6, DIMENSION)).repeat(6, axis=0)
    rows = things + 0.7 * draws.standard_normal((COUNT, DIMENSION))
    rows *= draws.uniform(0.8, 1.0, (COUNT, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    keys = np.sort(draws.choice(3 * COUNT, COUNT, replace=False)).astype(np.int64)
    queries = rows[draws.choice(COUNT, 60, replace=False)] + 0.05 * draws.standard_normal((60, DIMENSION))
    return keys, rows.astype(np.float16), queries.astype(np.float32)


KEYS_OF, ROWS, QUERIES = drawn()


def scan():
    for start in range(0, COUNT, 700):
        yield KEYS_OF[start : start + 700], ROWS[start : start + 700]


def built(factory, effort=0, rescored=1, **options):
    setting = IndexSetting(factory=factory, effort=effort, rescored=rescored)
    return FaissIndex.build(setting, DIMENSION, scan, expected=COUNT, threads=1, **options)


def truth(allowed, k=K):
    """Return the k best keys [Q, k'] of the rows that are allowed, by brute force."""
    scores = np.where(allowed, QUERIES.astype(np.float64) @ ROWS.astype(np.float64).T, -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, np.count_nonzero(allowed))]
    return KEYS_OF[order]


def vectors(keys):
    return ROWS[np.searchsorted(KEYS_OF, keys)].astype(np.float32)


def rescored(index, selection=None):
    """Return the K best of the candidates by their exact scores: what a search answers."""
    found, _ = index.search(QUERIES, index.setting.candidates(K), selection)
    rows = ROWS[np.searchsorted(KEYS_OF, found)].astype(np.float64)
    order = np.argsort(-np.einsum("qcd,qd->qc", rows, QUERIES.astype(np.float64)), axis=1, kind="stable")
    return np.take_along_axis(found, order[:, :K], axis=1)


def recall(found, expected):
    return np.mean([np.isin(right, some).mean() for some, right in zip(found, expected, strict=True)])


@pytest.fixture(scope="module", params=LEAST_RECALL, ids=lambda setting: setting[0])
def index(request):
    return built(*request.param)


def least_recall(index):
    setting = index.setting
    return LEAST_RECALL[setting.factory, setting.effort, setting.rescored]


def test_recall_beside_exact_search(index):
    assert (index.size, index.dimension) == (COUNT, DIMENSION)
    np.testing.assert_array_equal(index.keys, KEYS_OF)
    assert recall(rescored(index), truth(np.ones(COUNT, bool))) >= least_recall(index)
    assert index.exact == (index.setting.factory in ("Flat", "SQfp16"))


@pytest.mark.parametrize("many", [10, 50, 100])
def test_the_candidates_that_are_scored_find_as_much_as_all(index, many):
    found, every, scored = [], [], 0
    candidates, _ = index.search(QUERIES, index.setting.candidates(many))
    for keys, query in zip(candidates, QUERIES, strict=True):
        exact = inner_products(vectors(keys), query)
        enough = scores_of_enough(vectors, keys, query, many)
        assert enough.tolist() == exact[: len(enough)].tolist() and len(enough) >= min(many, len(keys))
        scored += len(enough)
        found.append(keys[np.argsort(-enough, kind="stable")[:many]])
        every.append(keys[np.argsort(-exact, kind="stable")[:many]])
    expected = truth(np.ones(COUNT, bool), many)
    assert recall(found, expected) >= recall(every, expected) - 0.01
    assert scored <= candidates.size if many > 25 else scored == candidates.size
    if index.setting.rescored > 3 and many == 100:
        assert scored < 0.9 * candidates.size


@pytest.mark.parametrize("share", SHARES)
def test_a_filter_of_any_share_costs_no_recall_and_leaves_no_gap(index, share):
    allowed = np.random.default_rng(int(1000 * share)).random(COUNT) < share
    selection = Selection.of(KEYS_OF[allowed])
    found, scores = index.search(QUERIES, index.setting.candidates(K), selection)
    assert found.shape == scores.shape == (60, min(index.setting.candidates(K), np.count_nonzero(allowed)))
    assert selection.has(found.ravel()).all()
    assert all(len(set(row)) == len(row) for row in found.tolist())
    assert recall(rescored(index, selection), truth(allowed)) >= least_recall(index)


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_codes_that_a_filter_lets_through_are_searched_decoded_or_not_with_the_same_result(index, share, monkeypatch):
    selection = Selection.of(KEYS_OF[np.random.default_rng(1).random(COUNT) < share])
    found = []
    for most in (2**26, 0):
        monkeypatch.setattr(faiss_index, "DECODED", most)
        found.append(index.search(QUERIES, 20, selection))
    if "Refine" in index.setting.factory and share == 0.3:
        # More than are kept: without the decoded codes the coarse ones choose which.
        assert recall(found[1][0], found[0][0]) > 0.97
        return
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
    assert recall(found[0][0], found[1][0]) > 0.998


def test_few_values_keep_the_order_of_vectors_that_are_not_centred():
    """PCA subtracts the mean: 0.61 of them would be found if it were not told to keep it."""
    shift = np.full(DIMENSION, 0.1, np.float16)
    setting = IndexSetting(factory="PCA60,Flat")
    index = FaissIndex.build(setting, DIMENSION, lambda: iter([(KEYS_OF, ROWS + shift)]), expected=COUNT, threads=1)
    keys, _ = index.search(QUERIES + shift, K)
    scores = (QUERIES + shift).astype(np.float64) @ (ROWS + shift).astype(np.float64).T
    assert recall(keys, KEYS_OF[np.argsort(-scores, axis=1)[:, :K]]) > 0.85


def test_a_graph_of_few_values_finds_vectors_of_equal_norms_by_distance():
    draws = np.random.default_rng(2)
    spread = np.float32(0.8) ** np.arange(DIMENSION)
    rows = draws.standard_normal((COUNT, DIMENSION)) * spread + 0.3
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    found, exact = [], KEYS_OF[np.argsort(-(unit[:50].astype(np.float64) @ unit.T.astype(np.float64)))[:, :K]]
    for longer in (1.0, 1.1):
        norms = np.where(np.arange(COUNT) == 0, longer, 1.0)[:, None].astype(np.float16)
        index = FaissIndex.build(
            IndexSetting(factory="PCA8,HNSW16,SQ8", effort=48),
            DIMENSION,
            lambda norms=norms: iter([(KEYS_OF, unit * norms)]),
            expected=COUNT,
            threads=1,
        )
        keys, scores = index.search(unit[:50].astype(np.float32), 40)
        assert (np.diff(scores, axis=1) <= 0).all()
        found.append(recall(keys, exact))
    # One longer vector is enough: by distance it would be found where it is not the nearest.
    assert found[0] > 0.97 and found[0] > found[1] > 0.7


@pytest.mark.parametrize("wanted", [200, 700, 2000, 5000])
def test_the_vectors_that_train_an_index_can_be_read_alone(monkeypatch, tmp_path, wanted):
    monkeypatch.setattr(faiss_factory, "sample_size", lambda index: wanted)
    steps, passes = [], []

    def sampled(step):
        steps.append(step)
        for start in range(0, COUNT, 7 * step):
            yield KEYS_OF[start : start + 7 * step : step], ROWS[start : start + 7 * step : step]

    def every():
        passes.append(1)
        return scan()

    files = []
    for options in ({}, {"sampled": sampled}):
        setting = IndexSetting(factory="PCA48,IVF4,SQ8")
        index = FaissIndex.build(setting, DIMENSION, every, expected=COUNT, threads=1, **options)
        (tmp_path / str(len(files))).mkdir()
        index.save(tmp_path / str(len(files)))
        files.append((tmp_path / str(len(files)) / INDEX).read_bytes())
    assert files[0] == files[1]
    assert steps == [max(1, COUNT // wanted)] and len(passes) == 3


def test_scores_of_an_exact_index_are_inner_products(index):
    found, scores = index.search(QUERIES, 5)
    exact = np.einsum("qcd,qd->qc", ROWS[np.searchsorted(KEYS_OF, found)].astype(np.float64), QUERIES)
    assert (np.diff(scores, axis=1) <= 0).all()
    if index.exact:
        np.testing.assert_allclose(scores, exact, atol=1e-6)


def test_all_nothing_and_no_query(index):
    found, _ = index.search(QUERIES[:2], 10 * COUNT)
    assert [sorted(row) for row in found.tolist()] == [KEYS_OF.tolist()] * 2
    assert index.search(QUERIES, 5, Selection.of(np.empty(0, np.int64)))[0].shape == (60, 0)
    assert index.search(QUERIES[:0], 5)[0].shape == (0, 5)
    assert index.search(QUERIES, 0)[0].shape == (60, 0)
    with pytest.raises(ValueError, match="expected rows of 64 values"):
        index.search(QUERIES[:, :3], 5)


def test_a_mapped_index_answers_as_the_one_that_was_saved(index, tmp_path):
    index.save(tmp_path)
    loaded = FaissIndex.load(tmp_path, threads=1)
    assert type(loaded) is type(index) and loaded.setting == index.setting
    for selection in (None, Selection.of(KEYS_OF[::20])):
        for mine, its in zip(index.search(QUERIES, 40, selection), loaded.search(QUERIES, 40, selection), strict=True):
            np.testing.assert_array_equal(mine, its)
    if "fs" not in index.setting.factory:
        assert str(tmp_path / INDEX) in Path("/proc/self/maps").read_text()


def test_damaged_files_are_noticed(tmp_path):
    index = built("HNSW16,SQ8")
    index.save(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in (INDEX, KEYS, SETTING)}
    for name, content in whole.items():
        for damaged in (content[: len(content) // 2], b""):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                FaissIndex.load(tmp_path, threads=1)
        (tmp_path / name).unlink()
        with pytest.raises(OSError, match=name):
            FaissIndex.load(tmp_path, threads=1)
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / KEYS, index.keys[:-1])
    with pytest.raises(ValueError, match=r"3,000 vectors, and keys.npy beside it 2,999 keys"):
        FaissIndex.load(tmp_path, threads=1)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("HNSV32", "FAISS cannot make the index 'HNSV32'.*such as Flat"),
        ("PQ7x8", "FAISS cannot make the index 'PQ7x8' for vectors of 64 values"),
        ("PCA65,Flat", "makes 65 values of 64; expected no more"),
        ("IDMap,Flat", "IndexIDMap, which Landseer does not serve"),
        ("Flat,RFlat", "IndexRefineFlat, which Landseer does not serve"),
        ("IVF4,PQ16x4fs,Refine(SQ8)", "IndexRefine, which Landseer does not serve.*Refine.*for IVF1"),
        ("IVF1,PQ16x4fs,Refine(PQ16x4)", "IndexRefine, which Landseer does not serve"),
        ("IVF1,PQ16x4fs,Refine(SQ9)", "FAISS cannot make the index 'IVF1,PQ16x4fs,Refine.SQ9.'"),
        ("IVF16_HNSW8,SQ8", "lists are found by exact search"),
        ("IVF4000,SQ8", "got 3,000 vectors to train an index of 4,000 lists on; expected at least 156,000"),
    ],
)
def test_an_index_that_cannot_be_served_is_rejected(factory, message):
    with pytest.raises(ValueError, match=message):
        built(factory)


def test_keys_must_increase_and_vectors_have_their_size():
    setting, flat = IndexSetting(factory="Flat"), main_index_of(IndexSetting(factory="Flat"))
    for keys, rows, message in (
        ([5, 5], ROWS[:2], "expected keys that increase"),
        ([-1, 5], ROWS[:2], "expected keys that increase"),
        ([1, 2], ROWS[:2, :5], "expected rows of 64 values"),
    ):
        some = np.array(keys, np.int64)
        with pytest.raises(ValueError, match=message):
            flat.build(setting, DIMENSION, lambda s=some, r=rows: iter([(s, r)]), expected=2, threads=1)


@pytest.mark.parametrize("factory", ["HNSW16,SQ8", "IVF16,SQ8"])
def test_a_build_tells_its_progress_and_stops_when_told(factory):
    seen, stop = [], threading.Event()
    assert built(factory, progress=seen.append).size == seen[-1] == COUNT
    assert seen == sorted(seen) and len(seen) == 5
    with pytest.raises(BuildStopped):
        built(factory, progress=lambda count: stop.set(), stop=stop)
    with pytest.raises(BuildStopped):
        built(factory, stop=stop)


def test_threads_are_set_where_it_searches():
    index = built("Flat")
    faiss.omp_set_num_threads(2)
    index.search(QUERIES, 1)
    assert faiss.omp_get_max_threads() == 1


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"factory": "Flat"}', '{"factory": "Flat", "effort": "1", "rescored": 1}']
)
def test_a_setting_that_is_not_one_is_rejected(text):
    setting = IndexSetting(factory="HNSW32,SQ8", effort=96, rescored=3)
    assert IndexSetting.from_json(setting.to_json()) == setting
    with pytest.raises(ValueError, match=r"expected|not JSON"):
        IndexSetting.from_json(text)


def test_finer_codes_find_more_the_more_candidates_are_compared_by_them():
    index = built("PCAR64,IVF1,PQ8x4fs,Refine(SQ8)")
    expected = truth(np.ones(COUNT, bool))
    found = [
        recall(index.searched_with(effort=effort, rescored=1).search(QUERIES, K)[0], expected)
        for effort in (10, 40, 160, COUNT)
    ]
    assert found == sorted(found) and found[0] < 0.9 and found[-1] > 0.98
    together, alone = index.search(QUERIES, K)[0], [index.search(query[None], K)[0][0] for query in QUERIES]
    assert recall(alone, together) > 0.99
    assert faiss_factory.code_bytes(faiss_factory.made(index.setting.factory, DIMENSION)) == 4 + 64


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "HNSW8,SQ8", "RR,SQ8"])
def test_an_index_with_room_copies_nothing_as_it_grows(factory):
    index = faiss_factory.made(factory, DIMENSION)
    faiss_factory.train(index, ROWS[:500].astype(np.float32))
    faiss_factory.reserve(index, COUNT)
    kind = faiss_factory.inner(index)
    codes = faiss.downcast_index(kind.storage) if isinstance(kind, faiss.IndexHNSW) else kind
    rooms = [codes.codes, *([kind.hnsw.neighbors] if isinstance(kind, faiss.IndexHNSW) else [])]
    index.add(ROWS[:100].astype(np.float32))
    places = [int(room.data()) for room in rooms]
    for start in range(100, COUNT, 500):
        index.add(ROWS[start : start + 500].astype(np.float32))
    assert index.ntotal == COUNT and [int(room.data()) for room in rooms] == places
