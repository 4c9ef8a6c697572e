"""Words learned from a store: the same however often the job is interrupted."""

from __future__ import annotations

import numpy as np
import pytest

from landseer.ensemble.asmk.codebook import Codebook, train
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.ingest.store_features import MOST_FEATURES, sample
from landseer.ensemble.ingest.vocabulary import draft_of, learn
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store

SHA = "ab" * 32


def local_features(seed, *, count=50, regions=()):
    draws = np.random.default_rng(seed)
    rows = draws.standard_normal((count + sum(regions), 8)).astype(np.float32)
    return LocalFeatures(
        descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
        positions=np.zeros((len(rows), 2), np.float32),
        scales=np.ones(len(rows), np.float32),
        counts=(count, *regions),
    )


def record(number, **changes):
    fields = {
        "id": f"r{number}",
        "metadata": {},
        "width": 40,
        "height": 30,
        "descriptor": np.ones(4, np.float16),
        "query_vector": np.zeros(16, np.float16),
        "clusters": np.zeros((0, 16), np.float16),
        "boxes": np.zeros((0, 5), np.float32),
        "feature_map": np.zeros((0, 4), np.uint8),
        "model_version": "1",
        "indexed_at": 1e9,
        "locals": local_features(number),
    }
    return Record(**(fields | changes))


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "store", fingerprint="{}", clusters_shape=(10, 16), locals_sha256=SHA)
    opened.put_many([record(number) for number in range(20)])
    yield opened
    opened.close()


@pytest.fixture
def drawn(store):
    return sample(store, name="photos", seed=3)


def kept(seed, **options):
    return unpack_features(pack_features(local_features(seed, **options)))


def test_all_features_are_taken_if_there_are_few(store, drawn):
    assert drawn.features.shape == (1000, 8)
    np.testing.assert_array_equal(drawn.features[50:100], kept(1).descriptors)
    source = drawn.source
    assert (source.store, source.sequence, source.pictures) == ("photos", 20, 20)
    assert (source.locals_sha256, source.seed) == (SHA, 3)


def test_of_many_each_picture_gives_its_share_drawn_by_the_seed(store):
    small, again, other = (sample(store, name="x", most=200, seed=seed).features for seed in (1, 1, 2))
    assert small.shape == (200, 8)
    np.testing.assert_array_equal(small, again)
    assert not np.array_equal(small, other)
    rows = {row.tobytes() for row in kept(4).descriptors}
    assert {row.tobytes() for row in small[40:50]} < rows


def test_regions_are_left_out(store):
    store.put_many([record(99, locals=local_features(99, regions=(30, 7)))])
    assert len(sample(store, name="x").features) == 21 * 50


def test_a_store_without_any_says_how_to_get_them(tmp_path):
    store = Store.open(tmp_path / "empty", fingerprint="{}", clusters_shape=(10, 16), locals_sha256=None)
    with pytest.raises(LocalFeaturesMissing, match="landseer serve --local-features deep"):
        sample(store, name="photos")
    store.close()


def test_words_are_those_of_plain_training(drawn, tmp_path):
    reported = []
    book = learn(drawn, tmp_path / "words", rounds=5, report=lambda done: reported.append(done.number))
    plain = train(drawn.features, rounds=5, seed=3)
    assert book.words == plain.words == 16
    np.testing.assert_array_equal(book.centroids, plain.centroids)
    assert reported == [1, 2, 3, 4, 5]
    saved = Codebook.load(tmp_path / "words")
    assert saved.fingerprint == book.fingerprint
    assert saved.card["locals_sha256"] == saved.card["job"]["locals_sha256"] == SHA and saved.card["job"]["words"] == 16
    assert saved.card["job"]["store"] == "photos" and saved.card["rounds"] == 5 and saved.card["error"] > 0
    assert not draft_of(tmp_path / "words").exists()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_stopped_and_run_again_it_ends_with_the_same_bytes(drawn, tmp_path, stop):
    def interrupted(done):
        if done.number == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(drawn, tmp_path / "words", words=10, rounds=5, report=interrupted)
    assert not (tmp_path / "words").exists() and draft_of(tmp_path / "words").exists()
    reported = []
    learn(drawn, tmp_path / "words", words=10, rounds=5, report=lambda done: reported.append(done.number))
    assert reported == list(range(stop + 1, 6))
    learn(drawn, tmp_path / "whole", words=10, rounds=5)
    assert (tmp_path / "words").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_finished_run_is_not_repeated_but_can_be_refined(drawn, tmp_path):
    first = learn(drawn, tmp_path / "words", words=10, rounds=3)
    reported = []
    again = learn(drawn, tmp_path / "words", words=10, rounds=3, report=reported.append)
    assert not reported and again.fingerprint == first.fingerprint
    learn(drawn, tmp_path / "words", words=10, rounds=5, report=reported.append)
    assert [done.number for done in reported] == [4, 5]


def test_another_job_starts_over(store, drawn, tmp_path):
    learn(drawn, tmp_path / "words", words=10, rounds=2)
    store.put_many([record(50)])
    for other, words in ((drawn, 12), (sample(store, name="photos", seed=3), 10)):
        reported = []
        learn(other, tmp_path / "words", words=words, rounds=2, report=reported.append)
        assert [done.number for done in reported] == [1, 2]


def test_a_damaged_draft_starts_over(drawn, tmp_path):
    draft_of(tmp_path / "words").write_bytes(b"garbage" * 100)
    assert learn(drawn, tmp_path / "words", words=4, rounds=1).words == 4


def test_more_words_than_features_are_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match="1000 features for 2000 words"):
        learn(drawn, tmp_path / "words", words=2000, rounds=1)


def test_the_maximum_is_enough_for_the_largest_codebook():
    assert MOST_FEATURES == 2_555_904
