"""Records of real pictures, on which generated entries are fitted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.store.folder import DATA
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photograph
from landseer.export.datasets.readers import read
from landseer.ops.errors import OpsError
from landseer.ops.run.stack import Stack, StackConfig
from landseer.v1.index_pb2 import Picture, UpsertFailure

T = TypeVar("T")
LEAST = 32
"""Minimum number of real pictures to estimate the distribution of vectors from."""
UPLOAD_S = 3600.0
"""Time limit for all photographs together. The first run describes them; later runs read them from the store."""


@dataclass(frozen=True, kw_only=True)
class PhotographSource:
    """Photographs, the models that describe them, and where their records are kept."""

    repository: Path
    profile: Profile
    photographs: str
    """A data set, in the notation of `landseer evaluate`."""
    limit: int
    """Maximum number of photographs, spread evenly over the data set."""
    home: Path
    """Folder of the stores; there is one per profile and data set."""

    @property
    def store(self) -> Path:
        """The store of these photographs."""
        known = f"{self.profile.fingerprint} {self.photographs} {self.limit}"
        return self.home / hashlib.sha256(known.encode()).hexdigest()[:12]


def real_records(source: PhotographSource, console: Console) -> list[Record]:
    """Return the records of the photographs; the first call indexes them through the real service.

    Tells how many could not be indexed, and why the first of them could not.
    OpsError if the data set, or all but fewer than `LEAST` of its photographs, cannot be read.
    """
    try:
        chosen = spread(read(source.photographs).photographs, source.limit)
    except DatasetError as error:
        raise OpsError(str(error)) from error
    missing = _missing(source, chosen)
    if missing:
        with console.status(f"describing {len(missing):,} photographs (only once)"):
            failures = _index(source, missing)
        if failures:
            some, first = f"{len(failures):,} of {len(missing):,} photographs", failures[0]
            why = f"{some} were not indexed; the first is {first.id}: {first.message}"
            console.print(why, markup=False, highlight=False)
    records = _read(source)
    if len(records) < LEAST:
        raise OpsError(
            f"{source.photographs} has {len(records)} readable pictures; expected at least {LEAST}; use a larger set"
        )
    return records


def real_features(source: PhotographSource) -> list[tuple[CompactKeypoints, Patches]]:
    """Return the keypoints and patches of the photographs that `real_records` indexed, of those that have both."""
    store = _open(source.store, source.profile)
    try:
        scanned = [(keys.tolist(), features) for keys, features in store.keypoints.scan()]
        pairs = ((store.patches.read(keys), features) for keys, features in scanned)
        both = [pair for patches, keypoints in pairs for pair in zip(keypoints, patches, strict=True)]
        return [(keypoints, patches) for keypoints, patches in both if patches is not None]
    finally:
        store.close()


def stored_records(folder: Path, profile: Profile, *, limit: int) -> list[Record]:
    """Return at most `limit` records of a store, spread evenly over it. OpsError for fewer than `LEAST`.

    StoreUnusable; ProfileMismatch if other models filled it.
    """
    if not (folder / DATA).exists():
        raise OpsError(f"there is no store in {folder}; give the folder of `landseer serve --store`")
    records = spread(_records(folder, profile), limit)
    if len(records) < LEAST:
        raise OpsError(f"{folder} has {len(records)} pictures; expected at least {LEAST}; use a larger store")
    return records


def spread(some: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` of them, evenly spaced and in order."""
    places = np.unique(np.linspace(0, len(some) - 1, min(limit, len(some))).round().astype(int)) if some else []
    return [some[place] for place in places]


def _missing(source: PhotographSource, chosen: Sequence[Photograph]) -> list[Photograph]:
    """Return the photographs that are not in the store."""
    known = {record.id for record in _read(source)} if source.store.exists() else set()
    return [one for one in chosen if str(one.path) not in known]


def _index(source: PhotographSource, some: Sequence[Photograph]) -> Sequence[UpsertFailure]:
    """Index photographs; return those that failed, and why."""
    config = StackConfig(repository=source.repository, store=source.store, serve_args=("--no-thumbnails",))
    pictures = (Picture(id=str(one.path), image=one.path.read_bytes()) for one in some)
    with Stack(config) as stack, BlockingSearchClient(stack.search_address) as client:
        return list(client.upsert_many(pictures, timeout=UPLOAD_S).failures)


def _read(source: PhotographSource) -> list[Record]:
    return _records(source.store, source.profile)


def _records(folder: Path, profile: Profile) -> list[Record]:
    """Return all records of a store, in order."""
    store = _open(folder, profile)
    try:
        keys = [int(key) for batch, _ in store.vectors.scan() for key in batch]
        return [found.record for found in store.by_keys(keys) if found is not None]
    finally:
        store.close()


def _open(folder: Path, profile: Profile) -> Store:
    shape = (profile.sizes.clusters, profile.sizes.reduced)
    return Store.open(folder, fingerprint=profile.fingerprint, clusters_shape=shape)
