"""Milvus as a contender of the index benchmark: a server of its own, filled with the vectors of a trial."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pymilvus

from landseer.ensemble.errors import IndexUnavailable
from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.live_index import BATCH
from landseer.ensemble.index.milvus_collection import MilvusCollection, MilvusLogin
from landseer.ensemble.index.milvus_filter import search_among
from landseer.ensemble.index.milvus_setting import milvus_index
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.milvus_address import MilvusAddress
from landseer.ensemble.telemetry.metrics import Metrics
from landseer.ops.bench.index_trial import BuiltIndex, IndexCost, IndexTrial
from landseer.ops.errors import OpsError
from landseer.ops.run.milvus import MilvusServer, installed
from landseer.ops.run.ports import LOOPBACK

MADE_OF = "of a benchmark"
INDEXED_S, STARTED_S, SEARCH_S = 3600.0, 300.0, 60.0
"""Longest waits: for an index, for a server that loads it, and for the answers to a group of searches."""
STEADY_S = 10.0
"""So long it must have answered without a failure: soon after its first answers Milvus may load a collection again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MilvusTried:
    """A collection of Milvus with a setting."""

    collection: MilvusCollection
    setting: IndexSetting
    size: int

    def searched_with(self, *, effort: int, rescored: int) -> MilvusTried:
        """Return the same index, searched with other numbers."""
        return replace(self, setting=replace(self.setting, effort=effort, rescored=rescored))

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates, best first. IndexUnavailable."""
        self.collection.index = replace(self.collection.index, effort=self.setting.effort)
        # As many in a call as the server asks for.
        parts = [self._search(queries[at : at + BATCH], k, selection) for at in range(0, len(queries), BATCH)]
        return _stacked([keys for keys, _ in parts], -1), _stacked([scores for _, scores in parts], -np.inf)

    def _search(self, queries: Vectors, k: int, selection: Selection | None) -> tuple[Keys, Vectors]:
        if selection is None:
            return self.collection.search(queries, k)
        return search_among(self.collection, queries, k, selection, size=self.size)


def _stacked(parts: list[Any], missing: float) -> Any:
    """Return tables below each other, narrower ones filled up."""
    width = max(part.shape[1] for part in parts)
    filled = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=missing) for part in parts]
    return np.concatenate(filled)


@contextmanager
def milvus_built(trial: IndexTrial, factory: str, data: Path) -> Iterator[BuiltIndex]:
    """Start a server on an empty folder, fill it with a trial's vectors, index them, and start it again.

    OpsError; IndexUnavailable; ValueError for an index that Milvus is not asked for.
    """
    setting = IndexSetting(factory=factory)
    index, server = milvus_index(setting), MilvusServer(installed(), data.resolve())
    try:
        server.start()
        address = MilvusAddress(host=LOOPBACK, port=server.port, collection="trial", tls=False)
        collection = MilvusCollection(MilvusLogin(address=address), index, dimension=trial.dimension, metrics=Metrics())
        _open(collection)
        began = time.monotonic()
        for keys, rows in trial.scan():
            collection.upsert(keys, rows.astype(np.float32))
        settled(server.port, address.collection, len(trial.keys))
        seconds = time.monotonic() - began
        start_s = _started_again(server, collection)
        _wait_steady(collection)
        collection.search_s = SEARCH_S
        cost = IndexCost(
            name=f"Milvus {factory}",
            size=len(trial.keys),
            seconds=seconds,
            bytes=sum(file.stat().st_size for file in data.rglob("*") if file.is_file()),
            start_s=start_s,
            own_bytes=server.own_bytes(),
        )
        yield BuiltIndex(
            index=MilvusTried(collection=collection, setting=setting, size=cost.size),
            cost=cost,
            clock=lambda: time.process_time() + server.processor_s(),
        )
        collection.close()
    finally:
        server.stop()


def settled(port: int, name: str, size: int, *, seconds: float = INDEXED_S, **access: Any) -> None:
    """Have Milvus seal a collection of so many vectors, and wait until they are indexed. OpsError if that takes longer.

    access: of `pymilvus.MilvusClient`, beside the address.
    """
    scheme = "https" if access.get("secure") else "http"
    client, until = pymilvus.MilvusClient(f"{scheme}://{LOOPBACK}:{port}", **access), time.monotonic() + seconds
    client.flush(name)
    while (found := client.describe_index(name, client.list_indexes(name)[0]))["indexed_rows"] < size:
        if time.monotonic() > until:
            raise OpsError(f"Milvus has indexed {found['indexed_rows']:,} of {size:,} vectors after {seconds:.0f} s")
        time.sleep(0.2)
    client.close()


def _open(collection: MilvusCollection) -> None:
    """Make and load the collection; a busy machine takes long. IndexUnavailable if it takes minutes."""
    until = time.monotonic() + STARTED_S
    while True:
        try:
            collection.open(MADE_OF)
        except IndexUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
        else:
            return


def _started_again(server: MilvusServer, collection: MilvusCollection) -> float:
    """Kill and start a server; return the seconds until it searches. OpsError if it takes minutes.

    Milvus 2.3.5 now and then ends while it starts ("nil pointer dereference"): it is started again, as by a supervisor.
    """
    server.kill()
    began, running = time.monotonic(), False
    while time.monotonic() < began + STARTED_S:
        try:
            if not running:
                server.start()
                running = True
            collection.open(MADE_OF)
            collection.search(np.ones((1, collection.dimension), np.float32), 1)
        except (IndexUnavailable, OpsError):
            time.sleep(0.1)
        else:
            return time.monotonic() - began
    raise OpsError(f"Milvus did not search {STARTED_S:.0f} s after its start")


def _wait_steady(collection: MilvusCollection) -> None:
    """Search until that went well for `STEADY_S`. IndexUnavailable if it does not for minutes."""
    query, until = np.ones((1, collection.dimension), np.float32), time.monotonic() + STARTED_S
    well = time.monotonic()
    while time.monotonic() < well + STEADY_S:
        try:
            collection.search(query, 1)
        except IndexUnavailable:
            if time.monotonic() > until:
                raise
            well = time.monotonic()
        time.sleep(0.1)
