from __future__ import annotations

import json
import zlib
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from landseer.ensemble.asmk.codebook import Codebook, fitting_words, refined, start, train


def features(count=400, dimension=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def test_assignment_equals_all_distances():
    codebook, rows = Codebook(centroids=features(50)), features(30, seed=1)
    distances = np.square(rows[:, None].astype(np.float64) - codebook.centroids).sum(axis=2)
    np.testing.assert_array_equal(codebook.assign(rows, multiple=50), np.argsort(distances, axis=1))
    np.testing.assert_array_equal(codebook.assign(rows)[:, 0], distances.argmin(axis=1))


def test_of_equally_near_words_the_lower_comes_first():
    codebook = Codebook(centroids=np.array([[5.0], [1.0], [1.0]], np.float32))
    np.testing.assert_array_equal(codebook.assign(np.ones((1, 1), np.float32), multiple=3), [[1, 2, 0]])


def test_assignment_in_blocks_is_assignment_at_once(monkeypatch):
    codebook, rows = Codebook(centroids=features(50)), features(30, seed=1)
    whole = codebook.assign(rows, multiple=3)
    monkeypatch.setattr("landseer.ensemble.asmk.codebook._BLOCK", 150)
    np.testing.assert_array_equal(codebook.assign(rows, multiple=3), whole)


def test_no_features_have_no_words():
    assert Codebook(centroids=features(5)).assign(np.empty((0, 8), np.float32), multiple=2).shape == (0, 2)


def test_training_finds_planted_words_and_repeats_itself():
    places = np.random.default_rng(1).normal(scale=10, size=(6, 8)).astype(np.float32)
    rows = (places[np.arange(600) % 6] + features(600) * 0.1).astype(np.float32)
    # Plain k-means may begin with two seeds in one cluster: more words than clusters cover all.
    once, again = train(rows, words=24, seed=3, rounds=10), train(rows, words=24, seed=3, rounds=10)
    assert np.linalg.norm(places[:, None] - once.centroids, axis=2).min(axis=1).max() < 0.5
    np.testing.assert_array_equal(once.centroids, again.centroids)
    assert once.card == {"words": 24, "features": 600, "rounds": 10, "seed": 3, "spherical": False}


def test_each_round_fits_no_worse_and_training_resumes():
    rows, errors = features(500), []
    whole = train(rows, words=16, rounds=6, report=lambda done: errors.append(done.error))
    assert len(errors) == 6 and all(after <= before + 1e-6 for before, after in pairwise(errors))
    half = [*refined(rows, start(rows, 16), rounds=3)][-1]
    rest = [*refined(rows, half.centroids, rounds=6, after=half.number)][-1]
    np.testing.assert_array_equal(rest.centroids, whole.centroids)


def test_spherical_words_have_unit_norm():
    words = train(features(300), words=8, rounds=3, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(words.centroids, axis=1), 1.0, atol=1e-5)


def test_the_size_follows_the_data():
    assert [fitting_words(n) for n in (1, 39, 77, 78, 40_000, 2_560_000, 10**9)] == [1, 1, 1, 2, 1024, 65536, 65536]
    assert fitting_words(10**9, most=1024) == 1024
    assert train(features(400), rounds=1).words == 8


def test_a_codebook_survives_its_file(tmp_path):
    codebook = Codebook(centroids=features(9), card={"data": "fruit", "words": 9})
    codebook.save(tmp_path / "codebook.safetensors")
    loaded = Codebook.load(tmp_path / "codebook.safetensors")
    np.testing.assert_array_equal(loaded.centroids, codebook.centroids)
    assert loaded.card == codebook.card
    assert loaded.fingerprint == codebook.fingerprint != Codebook(centroids=features(9, seed=1)).fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["codebook.safetensors"]


def test_the_file_is_safetensors(tmp_path):
    Codebook(centroids=features(9)).save(tmp_path / "codebook.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "codebook.safetensors")["centroids"], features(9))


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    centroids = features(9)
    about = {"card": '{"words": 9}', "crc32": json.dumps({"centroids": zlib.crc32(centroids.data)})}
    save_file({"centroids": centroids}, tmp_path / "codebook", about)
    loaded = Codebook.load(tmp_path / "codebook")
    np.testing.assert_array_equal(loaded.centroids, centroids)
    assert loaded.card == {"words": 9}


DAMAGE = {
    "empty": lambda content: b"",
    "short": lambda content: content[:-5],
    "long": lambda content: content + b"x",
    "other": lambda content: b"x" * len(content),
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "header": lambda content: content[:8] + b"[" + content[9:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "codebook"
    Codebook(centroids=features(9)).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="codebook is damaged or not a codebook"):
        Codebook.load(path)


@pytest.mark.parametrize(
    ("name", "about", "message"),
    [
        ("vectors", {"codebook": "{}"}, "holds vectors, but no centroids"),
        ("centroids", None, "no 'card' in its metadata"),
        ("centroids", {"format": "pt"}, "no 'card' in its metadata"),
        ("centroids", {"codebook": "{}"}, "no 'crc32' in its metadata"),
        ("centroids", {"codebook": '{"crc32": {}}'}, "no 'centroids' in its metadata"),
        ("centroids", {"codebook": "3"}, "not iterable"),
        ("centroids", {"codebook": '{"crc32": {"centroids": 1}, "card": {}}'}, "its checksum is wrong"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, name, about, message):
    save_file({name: features(2)}, tmp_path / "other", about)
    with pytest.raises(ValueError, match=f"other is damaged or not a codebook .*{message}"):
        Codebook.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Codebook(centroids=np.empty((0, 4), np.float32)), "got centroids of shape"),
        (lambda: Codebook(centroids=np.full((2, 4), np.nan, np.float32)), "not finite"),
        (lambda: Codebook(centroids=features(3)).assign(features(2, 5)), "rows of 8 values"),
        (lambda: Codebook(centroids=features(3)).assign(features(2), multiple=4), "expected 1 to 3, the words"),
        (lambda: train(features(5), words=6), "got 5 features for 6 words"),
        (lambda: train(np.full((9, 4), np.inf, np.float32), words=1), "not finite"),
    ],
)
def test_bad_input_is_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
