"""Which codebook serves what."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fake_triton import PROFILE

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.codebooks import Codebooks, LocalSources, codebooks_of, local_sources
from landseer.ensemble.keypoints.shipped import FEATURES, shipped_codebook

CHOICES = ("keypoints", "deep", "both", "none")


def saved(folder, name, dimension, card):
    path = folder / name
    rows = np.random.default_rng(0).random((8, dimension)).astype(np.float32)
    Codebook(centroids=rows, card=card).save(path)
    return path


@pytest.fixture
def of_keypoints(tmp_path):
    return saved(tmp_path, "keypoints.safetensors", 128, {"features": FEATURES})


@pytest.fixture
def of_deep(tmp_path):
    return saved(tmp_path, "deep.safetensors", 32, {"locals_sha256": "1" * 64})


def config(kept, codebook=None):
    return ServerConfig(store=Path("s"), local_features=kept, codebook=codebook)


@pytest.mark.parametrize(("kept", "shipped"), [("keypoints", True), ("both", True), ("deep", False), ("none", False)])
def test_keypoints_have_the_codebook_that_ships(kept, shipped):
    assert codebooks_of(config(kept)) == Codebooks(keypoints=shipped_codebook() if shipped else None)


@pytest.mark.parametrize("kept", ["keypoints", "both"])
def test_another_codebook_of_keypoints_takes_its_place(kept, of_keypoints):
    found = codebooks_of(config(kept, of_keypoints))
    assert found.keypoints.fingerprint == Codebook.load(of_keypoints).fingerprint and found.deep is None


def test_a_deep_codebook_stands_beside_that_of_keypoints(of_deep):
    both, deep = codebooks_of(config("both", of_deep)), codebooks_of(config("deep", of_deep))
    assert both.keypoints is shipped_codebook() and deep.keypoints is None
    assert both.deep.fingerprint == deep.deep.fingerprint == Codebook.load(of_deep).fingerprint


def test_a_codebook_of_keypoints_needs_keypoints(of_keypoints):
    with pytest.raises(ValueError) as caught:
        codebooks_of(config("deep", of_keypoints))
    assert str(caught.value) == (
        f"the codebook {of_keypoints} was learned on keypoints, and local-features is deep; "
        "start with --local-features keypoints or both, or without --codebook"
    )


def test_a_deep_codebook_needs_deep_local_features(of_deep):
    with pytest.raises(ValueError) as caught:
        codebooks_of(config("keypoints", of_deep))
    assert str(caught.value) == (
        f"the codebook {of_deep} was learned on deep local features, and local-features is keypoints; "
        "start with --local-features deep or both, or without --codebook"
    )


def test_a_file_that_is_missing_or_no_codebook_is_named(tmp_path):
    with pytest.raises(OSError, match="missing"):
        codebooks_of(config("keypoints", tmp_path / "missing"))
    (tmp_path / "other").write_bytes(b"garbage" * 100)
    with pytest.raises(ValueError, match="other"):
        codebooks_of(config("keypoints", tmp_path / "other"))


@pytest.mark.parametrize(
    ("kept", "codebook", "words", "verification"),
    [
        ("keypoints", None, "keypoints", "keypoints"),
        ("keypoints", "of_keypoints", "keypoints", "keypoints"),
        ("both", None, "keypoints", "keypoints"),
        ("both", "of_keypoints", "keypoints", "keypoints"),
        ("both", "of_deep", "deep", "keypoints"),
        ("deep", None, None, "deep"),
        ("deep", "of_deep", "deep", "deep"),
        ("none", None, None, None),
    ],
)
def test_keypoints_come_first(kept, codebook, words, verification, request):
    chosen = config(kept, codebook and request.getfixturevalue(codebook))
    found = local_sources(chosen, codebooks_of(chosen), PROFILE)
    assert found == LocalSources(words=words, verification=verification, patches=False)
    with_patches = local_sources(chosen, codebooks_of(chosen), dataclasses.replace(PROFILE, patches_sha256="3" * 64))
    assert with_patches == dataclasses.replace(found, patches=verification == "keypoints")
