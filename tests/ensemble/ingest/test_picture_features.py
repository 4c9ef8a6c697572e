"""Keypoints of picture files to learn words from, and the codebook that comes of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.index.codebooks import codebooks_of
from landseer.ensemble.ingest.picture_features import PROFILE, sample_pictures
from landseer.ensemble.ingest.vocabulary import draft_of, learn
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import is_for_keypoints
from landseer.ensemble.pictures.pictures import prepare


def photo(path, seed, *, blobs=60):
    """Soft blobs of random size: each gives SIFT a keypoint or two."""
    draws, (y, x) = np.random.default_rng(seed), np.mgrid[0:240, 0:320]
    values = np.full((240, 320), 128.0)
    for _ in range(blobs):
        row, column, size = draws.uniform(0, 240), draws.uniform(0, 320), draws.uniform(3, 12)
        values += draws.uniform(-90, 90) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def files(tmp_path):
    return [photo(tmp_path / f"{number}.png", number) for number in range(4)]


@pytest.fixture
def drawn(files):
    return sample_pictures(files, folders="photos", seed=3)


def test_the_keypoints_are_those_of_the_server(files, drawn):
    found = [extract(prepare(file.read_bytes(), profile=PROFILE).pixels).descriptors for file in files]
    assert min(map(len, found)) > 20
    np.testing.assert_array_equal(drawn.features, np.concatenate(found))
    assert (PROFILE.long_side, drawn.source.pictures, drawn.source.seed) == (640, 4, 3)


def test_of_many_each_picture_gives_its_share_drawn_by_the_seed(files, drawn):
    small, again, other = (sample_pictures(files, folders="x", most=40, seed=seed).features for seed in (1, 1, 2))
    assert small.shape == (40, 128)
    np.testing.assert_array_equal(small, again)
    assert not np.array_equal(small, other)
    first = extract(prepare(files[0].read_bytes(), profile=PROFILE).pixels).descriptors
    assert {row.tobytes() for row in small[:10]} < {row.tobytes() for row in first}


def test_unreadable_pictures_are_named_and_skipped(files, drawn, tmp_path):
    (bad := tmp_path / "bad.jpg").write_bytes(b"no picture")
    skipped, reported = [], []
    found = sample_pictures(
        [*files, bad, tmp_path / "gone.png"],
        folders="photos",
        seed=3,
        report=reported.append,
        skip=lambda file, why: skipped.append((file.name, why)),
    )
    assert [name for name, _ in skipped] == ["bad.jpg", "gone.png"]
    assert "not a picture" in skipped[0][1] and skipped[1][1] == "No such file or directory"
    assert reported == [1, 2, 3, 4, 5, 6]
    assert found.source == drawn.source
    np.testing.assert_array_equal(found.features, drawn.features)


def test_the_source_changes_with_a_picture(files, drawn):
    photo(files[2], 99)
    assert sample_pictures(files, folders="photos", seed=3).source != drawn.source


def test_without_keypoints_it_says_why(tmp_path):
    Image.new("RGB", (90, 60), "grey").save(tmp_path / "blank.png")
    (tmp_path / "bad.jpg").write_bytes(b"")
    files = [tmp_path / "bad.jpg", tmp_path / "blank.png"]
    with pytest.raises(LocalFeaturesMissing, match="no keypoints in photos: of 2 pictures 1 cannot be read, and 1 are"):
        sample_pictures(files, folders="photos")


def test_the_codebook_is_of_keypoints_and_in_half_precision(drawn, tmp_path):
    path = tmp_path / "words.safetensors"
    book = learn(drawn, path, words=8, rounds=2)
    saved = Codebook.load(path)
    assert saved.fingerprint == book.fingerprint and saved.centroids.dtype == np.float32
    np.testing.assert_array_equal(saved.centroids, saved.centroids.astype(np.float16))
    assert path.stat().st_size < 8 * 128 * 2 + 1000
    assert is_for_keypoints(saved) and saved.card["features"] == "rootsift"
    assert saved.card["rounds"] == 2 and 0 < saved.card["error"] < 1
    job = saved.card["job"]
    assert (job["words"], job["features"], job["pictures"], job["seed"]) == (8, len(drawn.features), 4, 3)
    assert job["folders"] == "photos" and len(job["pictures_sha256"]) == 64


def test_a_server_takes_it_for_keypoints(drawn, tmp_path):
    book = learn(drawn, tmp_path / "words", words=8, rounds=1)
    found = codebooks_of(ServerConfig(store=tmp_path / "store", codebook=tmp_path / "words"))
    assert found.deep is None and found.keypoints.fingerprint == book.fingerprint


@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_and_run_again_it_ends_with_the_same_bytes(drawn, tmp_path, stop):
    def interrupted(done):
        if done.number == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(drawn, tmp_path / "words", words=8, rounds=3, report=interrupted)
    assert Codebook.load(draft_of(tmp_path / "words")).card["rounds"] == stop
    learn(drawn, tmp_path / "words", words=8, rounds=3)
    learn(drawn, tmp_path / "whole", words=8, rounds=3)
    assert (tmp_path / "words").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_number_of_words_follows_that_of_keypoints_and_ends_at_what_ships(drawn, tmp_path):
    count = len(drawn.features)
    book = learn(drawn, tmp_path / "words", rounds=1)
    assert book.words * 39 <= count < book.words * 78
    assert drawn.source.fitting == 16_384


def test_more_words_than_the_store_can_keep_are_refused(drawn, tmp_path):
    with pytest.raises(ValueError, match="got 65,537 words; expected at most 65,536"):
        learn(drawn, tmp_path / "words", words=65_537, rounds=1)
