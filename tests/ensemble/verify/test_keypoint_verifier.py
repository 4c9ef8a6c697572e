"""The verifier over the keypoints and patches of a real store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from prints import camera, cover, photographed
from records import plain_record

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.keypoints.compact import pack_keypoints, unpack_keypoints
from landseer.ensemble.keypoints.extractor import frame_of
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.keypoints.rootsift import extract
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.store.store import Store
from landseer.ensemble.verify import chunks
from landseer.ensemble.verify.evidence import Comparison, evidence_of
from landseer.ensemble.verify.fast_spatial import fit
from landseer.ensemble.verify.keypoint_verifier import KeypointVerifier
from landseer.ensemble.verify.matching import matches_of, mutual_matches
from landseer.ensemble.verify.upright import fit_upright

SHAPE = (4, 12)
SEEN, UNSEEN = 7, 8
"""Keys of a picture without details, as seen from elsewhere: with patches of cover 3, and without any."""


@pytest.fixture(scope="module")
def quantiser():
    return Quantiser(shipped_codebook())


@pytest.fixture(scope="module")
def compact(quantiser):
    return {seed: quantiser.compact(extract(cover(seed), most=300), (400, 300)) for seed in range(1, 6)}


def patches(seed, count=120):
    """Return patches at whole pixels, so that the store rounds nothing."""
    draws = np.random.default_rng(seed)
    return Patches(
        codes=draws.integers(0, 256, (count, 16), dtype=np.uint8),
        positions=draws.integers(0, 300, (count, 2)).astype(np.float32),
        sizes=np.exp2(draws.integers(4, 7, count)).astype(np.float32),
        frame=(400, 300),
    )


def moved(some, *, by, agreeing):
    """Return patches seen from elsewhere: moved by pixels; those after the first `agreeing` are others."""
    others = patches(99, len(some))
    codes = np.concatenate([some.codes[:agreeing], others.codes[agreeing:]])
    return dataclasses.replace(some, codes=codes, positions=some.positions + np.float32(by))


@pytest.fixture
def store(tmp_path, quantiser, compact):
    opened = Store.open(
        tmp_path / "store",
        fingerprint="{}",
        clusters_shape=SHAPE,
        codebook=quantiser.codebook.fingerprint,
        patches_sha256="a" * 64,
    )
    covers = [
        plain_record(f"c{seed}", reduced=12, keypoints=kept, patches=None if seed == 5 else patches(seed))
        for seed, kept in compact.items()
    ]
    blank = quantiser.compact(extract(np.zeros((48, 64, 3), np.uint8)), (64, 48))
    opened.put_many(
        [
            *covers,
            plain_record("plain", reduced=12, patches=patches(6)),
            plain_record("seen", reduced=12, keypoints=blank, patches=moved(patches(3), by=20, agreeing=50)),
            plain_record("unseen", reduced=12, keypoints=blank),
        ]
    )
    yield opened
    opened.close()


@pytest.fixture
def query(quantiser):
    pixels = photographed(cover(3), camera(turn=15, zoom=0.7))
    return quantiser.query(extract(pixels, most=300), frame_of(pixels))


@pytest.fixture(params=[1, 3])
def verifier(request, store):
    made = KeypointVerifier(store.keypoints, store.patches, threads=request.param)
    yield made
    made.close()


def same(one, other):
    assert (one.inliers, one.probability, one.patches) == (other.inliers, other.probability, other.patches)
    for name in ("outline", "here", "there"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def by_keypoints(query, kept):
    there = unpack_keypoints(pack_keypoints(kept))
    return Comparison(query=query.keypoints, candidate=there, fit=fit(query.keypoints, there, matches_of(query, there)))


def by_patches(mine, theirs):
    found = fit_upright(mine, theirs, mutual_matches(mine, theirs))
    return Comparison(query=mine, candidate=theirs, fit=found)


async def test_evidence_is_that_of_verifying_one_by_one(verifier, query, compact, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    keys = np.array([5, 3, 6, 99, 1, 2, 4])
    found = await verifier.evidence(query, None, keys)
    assert sorted(found) == [1, 2, 3, 4, 5], "neither the picture without keypoints nor the missing key"
    for seed, kept in compact.items():
        same(found[seed], evidence_of(by_keypoints(query, kept)))
    assert max(found, key=lambda key: found[key].inliers) == 3 and found[3].probability > 0.9


async def test_an_indexed_picture_may_be_the_query(verifier, compact):
    found = await verifier.evidence(QueryKeypoints.of_indexed(compact[2]), None, np.array([1, 2]))
    assert found[2].inliers > 0.8 * len(np.unique(compact[2].positions, axis=0))
    corners = found[2].outline
    np.testing.assert_allclose(corners[0], found[2].here.min(axis=0), atol=0.01)
    np.testing.assert_allclose(corners[2], found[2].here.max(axis=0), atol=0.01)


async def test_a_query_without_keypoints_finds_nothing(verifier, quantiser):
    blank = quantiser.query(extract(np.zeros((48, 64, 3), np.uint8)), (64, 48))
    found = await verifier.evidence(blank, None, np.array([1, 2]))
    assert [one.inliers for one in found.values()] == [0, 0]


async def test_patches_are_compared_where_both_pictures_have_some(verifier, query, compact, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    await verifier.prepare()
    mine = patches(3)
    found = await verifier.evidence(query, mine, np.array([5, 6, SEEN, 3, 1, UNSEEN]))
    assert sorted(found) == [1, 3, 5, SEEN, UNSEEN], "a picture without keypoints is left out, whatever its patches"
    for seed in (1, 3):
        same(found[seed], evidence_of(by_keypoints(query, compact[seed]), by_patches(mine, patches(seed))))
    same(found[5], evidence_of(by_keypoints(query, compact[5])))
    assert found[3].patches == len(mine) and found[1].patches == found[5].patches == 0


async def test_patches_find_what_keypoints_do_not(verifier, query):
    found = await verifier.evidence(query, patches(3), np.array([SEEN, UNSEEN]))
    seen, unseen = found[SEEN], found[UNSEEN]
    assert (seen.inliers, seen.patches) == (0, 50) and (unseen.inliers, unseen.patches) == (0, 0)
    assert seen.score > 0 > unseen.score and seen.probability == unseen.probability
    np.testing.assert_allclose((seen.there - seen.here) * (400, 300), 20, atol=1e-3)
    np.testing.assert_allclose(seen.outline[0], seen.there.min(axis=0), atol=1e-3)
    assert len(unseen.outline) == 0


async def test_a_short_list_without_keypoints_is_rejected(verifier, query):
    with pytest.raises(LocalFeaturesMissing, match="none of the 2 candidates has keypoints; index the pictures again"):
        await verifier.evidence(query, None, np.array([6, 99]))
    assert await verifier.evidence(query, None, np.empty(0, np.int64)) == {}
