"""Real pictures as a store keeps them: what generated entries are held against."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.record import Record
from landseer.ensemble.store.store import Store
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photograph
from landseer.export.datasets.readers import read
from landseer.ops.errors import OpsError
from landseer.ops.run.stack import Stack, StackConfig
from landseer.v1.index_pb2 import Picture

LEAST = 32
"""Fewer real pictures say too little of how vectors spread."""
UPLOAD_S = 3600.0
"""For all photographs together; the first run describes them, later ones read them."""


@dataclass(frozen=True, kw_only=True)
class PhotographSource:
    """Which photographs, described by which models, kept where."""

    repository: Path
    profile: Profile
    photographs: str
    """A data set, as `landseer evaluate` names them."""
    limit: int
    """Most that are described, spread evenly over the data set."""
    home: Path
    """Folder of the stores that hold them; one for each profile and data set."""

    @property
    def store(self) -> Path:
        """The store of these photographs."""
        known = f"{self.profile.fingerprint} {self.photographs} {self.limit}"
        return self.home / hashlib.sha256(known.encode()).hexdigest()[:12]


def real_records(source: PhotographSource, console: Console) -> list[Record]:
    """Return the records of the photographs, indexed by the real service the first time.

    OpsError if the data set cannot be read, or fewer than `LEAST` photographs can.
    """
    try:
        chosen = spread(read(source.photographs).photographs, source.limit)
    except DatasetError as error:
        raise OpsError(str(error)) from error
    missing = _missing(source, chosen)
    if missing:
        with console.status(f"describing {len(missing):,} photographs, once"):
            _index(source, missing)
    records = _read(source)
    if len(records) < LEAST:
        raise OpsError(
            f"{source.photographs} gave {len(records)} pictures; expected at least {LEAST}, name a larger data set"
        )
    return records


def spread(some: Sequence[Photograph], limit: int) -> list[Photograph]:
    """Return at most `limit` of them at even distances, in their order."""
    places = np.unique(np.linspace(0, len(some) - 1, min(limit, len(some))).round().astype(int)) if some else []
    return [some[place] for place in places]


def _missing(source: PhotographSource, chosen: Sequence[Photograph]) -> list[Photograph]:
    """Return those that the store has not; all if it was never written."""
    known = {record.id for record in _read(source)} if source.store.exists() else set()
    return [one for one in chosen if str(one.path) not in known]


def _index(source: PhotographSource, some: Sequence[Photograph]) -> None:
    config = StackConfig(repository=source.repository, store=source.store, serve_args=("--no-thumbnails",))
    pictures = (Picture(id=str(one.path), image=one.path.read_bytes()) for one in some)
    with Stack(config) as stack, BlockingSearchClient(stack.search_address) as client:
        client.upsert_many(pictures, timeout=UPLOAD_S)


def _read(source: PhotographSource) -> list[Record]:
    sizes = source.profile.sizes
    store = Store.open(
        source.store, fingerprint=source.profile.fingerprint, clusters_shape=(sizes.clusters, sizes.reduced)
    )
    try:
        keys = [int(key) for batch, _ in store.vectors.scan() for key in batch]
        return [found.record for found in store.by_keys(keys) if found is not None]
    finally:
        store.close()
