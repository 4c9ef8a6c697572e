"""The verifier over the keypoints of a real store."""

from __future__ import annotations

import numpy as np
import pytest
from prints import camera, cover, photographed
from records import plain_record

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.keypoints.compact import pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.store.store import Store
from landseer.ensemble.verify import chunks
from landseer.ensemble.verify.evidence import evidence_of
from landseer.ensemble.verify.fast_spatial import fit
from landseer.ensemble.verify.keypoint_verifier import KeypointVerifier
from landseer.ensemble.verify.matching import matches_of

SHAPE = (4, 12)


@pytest.fixture(scope="module")
def quantiser():
    return Quantiser(shipped_codebook())


@pytest.fixture(scope="module")
def compact(quantiser):
    return {seed: quantiser.compact(extract(cover(seed), most=300), (400, 300)) for seed in range(1, 6)}


@pytest.fixture
def store(tmp_path, quantiser, compact):
    opened = Store.open(
        tmp_path / "store", fingerprint="{}", clusters_shape=SHAPE, codebook=quantiser.codebook.fingerprint
    )
    records = [plain_record(f"c{seed}", reduced=12, keypoints=kept) for seed, kept in compact.items()]
    opened.put_many([*records, plain_record("plain", reduced=12)])
    yield opened
    opened.close()


@pytest.fixture
def query(quantiser):
    pixels = photographed(cover(3), camera(turn=15, zoom=0.7))
    return quantiser.query(extract(pixels, most=300), frame_of(pixels))


@pytest.fixture(params=[1, 3])
def verifier(request, store):
    made = KeypointVerifier(store.keypoints, threads=request.param)
    yield made
    made.close()


def same(one, other):
    assert (one.inliers, one.probability) == (other.inliers, other.probability)
    for name in ("outline", "here", "there"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


async def test_evidence_is_that_of_verifying_one_by_one(verifier, query, compact, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    keys = np.array([5, 3, 6, 99, 1, 2, 4])
    found = await verifier.evidence(query, keys)
    assert sorted(found) == [1, 2, 3, 4, 5], "neither the picture without keypoints nor the missing key"
    for seed, kept in compact.items():
        there = unpack_keypoints(pack_keypoints(kept))
        same(found[seed], evidence_of(query.keypoints, there, fit(query.keypoints, there, matches_of(query, there))))
    assert max(found, key=lambda key: found[key].inliers) == 3 and found[3].probability > 0.9


async def test_an_indexed_picture_may_be_the_query(verifier, compact):
    found = await verifier.evidence(QueryKeypoints.of_indexed(compact[2]), np.array([1, 2]))
    assert found[2].inliers > 0.8 * len(np.unique(compact[2].positions, axis=0))
    corners = found[2].outline
    np.testing.assert_allclose(corners[0], found[2].here.min(axis=0), atol=0.01)
    np.testing.assert_allclose(corners[2], found[2].here.max(axis=0), atol=0.01)


async def test_a_query_without_keypoints_finds_nothing(verifier, quantiser):
    blank = quantiser.query(extract(np.zeros((48, 64, 3), np.uint8)), (64, 48))
    found = await verifier.evidence(blank, np.array([1, 2]))
    assert [one.inliers for one in found.values()] == [0, 0]


async def test_a_short_list_without_keypoints_is_rejected(verifier, query):
    with pytest.raises(LocalFeaturesMissing, match="none of the 2 candidates has keypoints; index the pictures again"):
        await verifier.evidence(query, np.array([6, 99]))
    assert await verifier.evidence(query, np.empty(0, np.int64)) == {}
