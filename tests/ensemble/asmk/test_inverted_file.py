from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_files import reference

from landseer.ensemble.asmk import inverted_file
from landseer.ensemble.asmk.aggregate import Binary, asmk, rasmk
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS, Kernel, idf, similarity
from landseer.ensemble.index.selection import Selection

WORDS, BITS = 60, 100


def picture(generator, most=20, words=WORDS, bits=BITS):
    chosen = np.sort(generator.choice(words, generator.integers(0, most + 1), replace=False))
    codes = np.packbits(generator.integers(0, 2, (len(chosen), bits)), axis=1)
    return Binary(words=chosen, codes=codes, bits=bits)


def pictures(count, seed=0):
    generator = np.random.default_rng(seed)
    return [picture(generator) for _ in range(count)]


def filled(held, **options):
    file = InvertedFile(words=WORDS, bits=BITS, **options)
    file.add(np.fromiter(held, np.int64, len(held)), list(held.values()))
    return file


def weights_of(held, kernel):
    if not kernel.idf:
        return None
    return idf(np.bincount(np.concatenate([one.words for one in held.values()]), minlength=WORDS), len(held))


def agree(file, held, query):
    """Check scores, hits and the word filter of a file against the kernel, one pair at a time."""
    weights = weights_of(held, file.kernel)
    expected = {key: similarity(query, one, file.kernel, weights=weights) for key, one in sorted(held.items())}
    keys, scores = file.scores(query)
    assert keys.tolist() == [*expected]
    # With idf the norms are added up in another order.
    np.testing.assert_allclose(scores, [*expected.values()], rtol=1e-12 if file.kernel.idf else 0, atol=0)
    shared = {key: len(np.intersect1d(query.words, one.words)) for key, one in sorted(held.items())}
    for least in (1, 3):
        assert file.sharing(query, least=least).tolist() == [key for key, count in shared.items() if count >= least]
    ranked = sorted((-score, key) for key, score in zip(keys.tolist(), scores, strict=True) if shared[key])
    for k in (0, 1, 7, len(held) + 5):
        found, values = file.search(query, k)
        assert found.tolist() == [key for _, key in ranked[:k]]
        assert values.tolist() == [-score for score, _ in ranked[:k]]
        chosen = Selection.of(np.array([key for key in held if key % 3 == 1], np.int64))
        found, values = file.search(query, k, chosen)
        few = [(score, key) for score, key in ranked if key % 3 == 1][:k]
        assert (found.tolist(), values.tolist()) == ([key for _, key in few], [-score for score, _ in few])


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_it_equals_the_kernel(kernel):
    held = dict(zip(range(5, 305), pictures(300), strict=True))
    file = filled(held, kernel=kernel)
    assert file.size == 300
    for query in pictures(5, seed=1):
        agree(file, held, query)


def test_a_kernel_below_zero_still_ranks_pictures_with_shared_words():
    held = dict(enumerate(pictures(50)))
    agree(filled(held, kernel=Kernel(alpha=1.0, tau=-2.0)), held, pictures(1, seed=1)[0])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 30), max_size=12)), max_size=12),
    st.sampled_from(list(KERNELS)),
)
def test_it_equals_the_kernel_after_any_changes(changes, kernel):
    held, file = {}, InvertedFile(words=WORDS, bits=BITS, kernel=KERNELS[kernel])
    for turn, (adding, keys) in enumerate(changes):
        if adding:
            made = pictures(len(keys), seed=turn)
            file.add(np.array(keys, np.int64), made)
            held.update(zip(keys, made, strict=True))
        else:
            file.remove(np.array(keys, np.int64))
            for key in keys:
                held.pop(key, None)
        assert file.size == len(held)
    for query in pictures(2, seed=99) if held else []:
        agree(file, held, query)


@pytest.fixture
def small(monkeypatch):
    """Segments of few pictures, as large collections have many."""
    monkeypatch.setattr(inverted_file, "MOST", 30)
    monkeypatch.setattr(inverted_file, "LISTED", 20)


@pytest.mark.parametrize("kernel", ["r-asmk", "how-idf"])
def test_many_segments_on_several_threads_give_the_same_scores(small, kernel):
    held = dict(enumerate(pictures(300)))
    with ThreadPoolExecutor(3) as pool:
        file = filled(held, kernel=KERNELS[kernel], pool=pool, threads=3)
        for query in pictures(3, seed=1):
            agree(file, held, query)
        file.remove(np.arange(0, 300, 2))
        for key in range(0, 300, 2):
            held.pop(key)
        agree(file, held, pictures(1, seed=2)[0])


def test_segments_are_few_and_none_is_too_large(small):
    file, held = InvertedFile(words=WORDS, bits=BITS), dict(enumerate(pictures(300)))
    for key, one in held.items():
        file.add(np.array([key]), [one])
    sizes = [segment.living for segment in file._state.segments]
    assert max(sizes) <= 30 and len(sizes) <= 300 / 30 * 2 and sum(sizes) == 300
    # Those that removals leave are merged, too.
    file.remove(np.arange(270))
    assert len(file._state.segments) <= 3
    agree(file, {key: held[key] for key in range(270, 300)}, pictures(1, seed=1)[0])


def test_words_are_weighted_anew_once_enough_pictures_changed(monkeypatch):
    monkeypatch.setattr(inverted_file, "STALE", 0.1)
    made, [query] = pictures(200), pictures(1, seed=1)
    held = dict(enumerate(made[:100]))
    file = filled(held, kernel=KERNELS["how-idf"])
    weights = weights_of(held, file.kernel)
    agree(file, held, query)
    for key in range(100, 105):
        file.add(np.array([key]), [made[key]])
    # Until then, the weights are those of the last search that computed them, for old and new pictures alike.
    expected = [similarity(query, one, file.kernel, weights=weights) for one in made[:105]]
    np.testing.assert_allclose(file.scores(query)[1], expected, rtol=1e-12)
    file.add(np.arange(105, 120), made[105:120])
    agree(file, dict(enumerate(made[:120])), query)


def test_words_that_all_have_are_shared_even_where_matches_are_below_zero():
    [one] = pictures(1, seed=4)
    opposite = Binary(words=one.words, codes=~one.codes, bits=BITS)
    file = filled({1: opposite, 2: opposite}, kernel=Kernel(alpha=1.0, tau=-2.0, idf=True))
    found, scores = file.search(one, 5)
    assert found.tolist() == [1, 2] and scores.tolist() == [0.0, 0.0]


def test_adding_one_by_one_is_adding_at_once():
    held = dict(enumerate(pictures(150)))
    file = InvertedFile(words=WORDS, bits=BITS)
    for key, one in held.items():
        file.add(np.array([key]), [one])
    # Few segments, or a search would slow down.
    assert len(file._state.segments) <= 5
    agree(file, held, pictures(1, seed=1)[0])


def test_removed_pictures_free_their_memory():
    file = filled(dict(enumerate(pictures(100))))
    before = file.nbytes
    file.remove(np.arange(90))
    assert file.nbytes < 0.5 * before
    file.remove(np.arange(100))
    assert file.size == file.nbytes == 0


def test_equal_scores_come_in_the_order_of_their_keys():
    [one] = pictures(1, seed=4)
    file = filled(dict.fromkeys([9, 3, 7, 5], one))
    assert file.search(one, 3)[0].tolist() == [3, 5, 7]


def test_a_picture_finds_itself_first():
    held = dict(enumerate(pictures(80)))
    file = filled(held, kernel=KERNELS["asmk"])
    for key, one in held.items():
        if len(one.words):
            found, scores = file.search(one, 1)
            assert found.tolist() == [key] and scores[0] == pytest.approx(1.0)


def test_empty_pictures_score_minus_one_and_are_never_hits():
    empty = Binary(words=np.empty(0, np.int64), codes=np.empty((0, 13), np.uint8), bits=BITS)
    [one] = pictures(1, seed=4)
    file = filled({1: one, 2: empty})
    assert file.scores(one)[1].tolist() == [len(one.words), -1.0]
    assert file.scores(empty)[1].tolist() == [-1.0, -1.0]
    assert file.search(one, 10)[0].tolist() == [1]
    assert len(file.search(empty, 10)[0]) == 0
    assert len(InvertedFile(words=WORDS, bits=BITS).search(one, 3)[0]) == 0


def test_searches_while_it_changes_see_whole_pictures():
    [one] = pictures(1, seed=4)
    file, wrong, done = filled(dict(enumerate(pictures(200)))), [], threading.Event()
    best = similarity(one, one, file.kernel)

    def reading():
        while not done.is_set():
            keys, scores = file.search(one, 5)
            # Every so often pictures 1,000 and 1,001 are there, always both, and nothing is more like the query.
            if set(keys.tolist()) & {1000, 1001} and (keys[:2].tolist() != [1000, 1001] or scores[1] != best):
                wrong.append((keys, scores))

    readers = [threading.Thread(target=reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(100):
        file.add(np.array([1000, 1001]), [one, one])
        file.remove(np.array([1000, 1001]))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def changed(**fields):
    [one] = pictures(1, seed=4)
    return Binary(**{"words": one.words, "codes": one.codes, "bits": one.bits, **fields})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed(bits=128), "got .* words, 128 bits"),
        (changed(codes=np.zeros((1, 13), np.uint8)), "a code of 100 bits for each word"),
        (changed(words=np.array([0, 60]), codes=np.zeros((2, 13), np.uint8)), "within 0 to 59"),
        (changed(words=np.array([-1, 6]), codes=np.zeros((2, 13), np.uint8)), "within 0 to 59"),
        (changed(words=np.array([6, 6]), codes=np.zeros((2, 13), np.uint8)), "not ascending"),
    ],
)
def test_pictures_of_another_codebook_are_refused_and_change_nothing(wrong, message):
    held = dict(enumerate(pictures(20)))
    file = filled(held)
    for use in (lambda: file.add(np.array([1, 2]), [held[2], wrong]), lambda: file.search(wrong, 3)):
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(ValueError, match="one key for each"):
        file.add(np.array([1]), [])
    agree(file, held, held[0])


def test_it_gives_the_similarities_of_delf():
    known = reference("rasmk_delf.npz")
    words = Codebook(centroids=known["codebook"])
    for normalised in (0, 1):
        file = InvertedFile(words=words.words, bits=words.dimension, kernel=Kernel(normalised=bool(normalised)))
        for name in range(8):
            counts = known[f"db{name}_num_features_per_region"].tolist()
            file.add(np.array([name]), [rasmk(known[f"db{name}_features"], counts, words).binarised()])
        for query in range(3):
            _, scores = file.scores(asmk(known[f"q{query}_features"], words).binarised())
            np.testing.assert_allclose(scores, known[f"sim_q_vs_r_asmk_star_l2norm{normalised}"][query], atol=1e-5)


@pytest.mark.parametrize("weighted", [0, 1])
def test_it_gives_the_scores_and_ranks_of_asmk(weighted):
    known = reference("asmk_d32.npz")
    words = Codebook(centroids=known["centroids"])
    file = InvertedFile(words=words.words, bits=words.dimension, kernel=Kernel(normalised=True, idf=bool(weighted)))
    names = range(known["db_imids"].max() + 1)
    file.add(np.array(names), [asmk(known["db"][known["db_imids"] == name], words).binarised() for name in names])
    for query, expected in enumerate(known[f"scores_bin1_idf{weighted}_ma5"]):
        one = asmk(known["q"][known["q_imids"] == query], words, multiple=5).binarised()
        np.testing.assert_allclose(file.scores(one)[1], expected, atol=1e-5)
        found, values = file.search(one, 14)
        ranks = known[f"ranks_bin1_idf{weighted}_ma5"][query][: len(found)]
        # Of equal scores the peer's fp32 decides which comes first.
        assert sorted(found.tolist()) == sorted(ranks.tolist())
        np.testing.assert_allclose(values, expected[ranks], atol=1e-6)
