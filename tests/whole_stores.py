"""Stores with some of everything, and what they keep, byte for byte."""

from __future__ import annotations

import dataclasses

import lmdb
import numpy as np
from store_records import record

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.store import Store

PROFILE = Profile(backbone="lite0", weights_sha256="ab" * 32, sizes=Sizes(channels=64))
KEPT = (b"records", b"descriptors", b"clusters", b"thumbnails", b"locals", b"words", b"keypoints", b"patches")


def open_store(folder, profile=PROFILE, **stamps):
    return Store.open(folder, fingerprint=profile.fingerprint, **stamps)


def open_full(folder):
    store = open_store(folder, locals_sha256="cd" * 32, codebook="words-1", patches_sha256="ef" * 32)
    store.words.stamp("deep-1")
    return store


def full_record(id, seed):
    """A record with metadata, boxes and features of its own; every third one has keypoints only."""
    draws = np.random.default_rng(seed)
    places = {"positions": draws.uniform(0, 640, (5, 2)).astype(np.float32)}
    bits = draws.integers(0, 256, (5, 16)).astype(np.uint8)
    whole = dataclasses.replace(
        record(id, seed),
        metadata={"path": f"{id}.jpg", "Ort": "Ürümqi", "empty": ""} if seed % 2 else {},
        boxes=draws.uniform(0, 400, (seed % 4, 5)).astype(np.float32),
        indexed_at=1.7e9 + draws.random(),
        thumbnail=b"" if seed % 5 == 0 else draws.bytes(200),
        keypoints=CompactKeypoints(
            words=np.arange(5),
            codes=bits,
            sizes=np.full(5, 8, np.float32),
            angles=np.ones(5, np.float32),
            frame=(640, 480),
            **places,
        ),
    )
    if seed % 3 == 0:
        return whole
    rows = draws.standard_normal((5, 24)).astype(np.float32)
    return dataclasses.replace(
        whole,
        patches=Patches(codes=bits, sizes=np.full(5, 16, np.float32), frame=(640, 480), **places),
        locals=LocalFeatures(
            descriptors=rows / np.linalg.norm(rows, axis=1, keepdims=True),
            scales=np.ones(5, np.float32),
            counts=(3, 2),
            **places,
        ),
        words=Binary(words=np.array([2, 7]), codes=bits[:2, :3], bits=24),
    )


def kept(folder):
    """Return what a store keeps of each picture, in the order of the pictures, byte for byte."""
    environment = lmdb.open(str(folder), max_dbs=20, readonly=True, lock=False)
    with environment.begin() as transaction:
        names = {bytes(name) for name, _ in transaction.cursor()}
        opened = {name: environment.open_db(name, txn=transaction, create=False) for name in names}
        keys = [bytes(key) for key, _ in transaction.cursor(opened[b"records"])]
        found = [{name: transaction.get(key, db=opened[name]) for name in names & set(KEPT)} for key in keys]
    environment.close()
    return [{name: value for name, value in one.items() if value is not None} for one in found]
