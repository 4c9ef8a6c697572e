"""What a collection over Milvus must find: brute force over what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
from fake_triton import PROFILE, SIZES
from records import plain_record

from landseer.ensemble.errors import IndexUnavailable
from landseer.ensemble.index.collection import Collection
from landseer.ensemble.index.following import Follower
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.index.writer import Writer
from landseer.ensemble.telemetry.metrics import Metrics

D = SIZES.channels


@contextlib.asynccontextmanager
async def opened(config):
    collection = await Collection.open(config, PROFILE, Metrics())
    try:
        await collection.load()
        writer, follower = Writer(collection), Follower(collection)
        try:
            yield collection, writer
        finally:
            await writer.close()
            await follower.close()
    finally:
        await asyncio.to_thread(collection.close)


class Truth:
    """What the store holds: rows by id, and their keys."""

    def __init__(self, seed):
        self.draws = np.random.default_rng(seed)
        rows = self.draws.standard_normal((40, D))
        # Few distinct vectors, so that ties are common.
        self.subjects = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
        self.held = {}

    async def put(self, writer, ids):
        rows = self.subjects[self.draws.integers(0, len(self.subjects), len(ids))]
        # Each apart: they share transactions, and some of a group replace others of it.
        made = [plain_record(id, reduced=SIZES.reduced, descriptor=row) for id, row in zip(ids, rows, strict=True)]
        changes = await asyncio.gather(*(writer.put([record]) for record in made))
        for (change,), record in zip(changes, made, strict=True):
            self.held[record.id] = (change.key, record.descriptor)

    async def delete(self, writer, ids):
        for id in ids:
            await writer.delete(id)
            del self.held[id]

    async def change(self, writer, count):
        """Add, replace and remove about so many each."""
        number = len(self.held)
        await self.put(writer, [f"p{number + at}" for at in range(count)])
        known = sorted(self.held)
        await self.put(writer, self.draws.choice(known, min(count, len(known)) // 2))
        await self.delete(writer, self.draws.permutation(known)[: count // 3].tolist())

    def best(self, query, k, selection=None):
        pairs = sorted(self.held.values(), key=lambda pair: pair[0])
        keys = np.array([key for key, _ in pairs], np.int64)
        rows = np.array([row for _, row in pairs], np.float64).reshape(-1, D)
        if selection is not None:
            rows, keys = rows[selection.has(keys)], keys[selection.has(keys)]
        scores = rows @ query.astype(np.float64)
        order = np.lexsort((keys, -scores))[:k]
        return keys[order], scores[order].astype(np.float32)

    async def agrees(self, collection, *, ks=(1, 10, 300), shares=(None, 0.01, 0.3, 0.97)):
        everything = np.array([key for key, _ in self.held.values()], np.int64)
        for share in shares:
            some = everything[: 0 if share is None else max(1, round(share * len(everything)))]
            selection = None if share is None else Selection.of(np.append(self.draws.permutation(some), 99_999))
            queries = self.draws.standard_normal((len(ks), D)).astype(np.float32)
            found = await asyncio.gather(
                *(collection.search(query, k, selection) for query, k in zip(queries, ks, strict=True))
            )
            for query, k, hits in zip(queries, ks, found, strict=True):
                keys, scores = self.best(query, k, selection)
                np.testing.assert_array_equal(hits.scores, scores)
                assert len(set(hits.keys.tolist())) == len(hits.keys) == len(keys)
                # Of vectors that tie at the end of the candidates, any may be the last.
                np.testing.assert_array_equal(hits.keys[scores > scores[-1]], keys[scores > scores[-1]])
                assert hits.lacks == ""
        assert collection.size == len(self.held)


async def answering(collection, seconds=60.0):
    """Wait until searches are answered, and lack nothing."""
    until = asyncio.get_running_loop().time() + seconds
    while True:
        with contextlib.suppress(IndexUnavailable):
            hits = await collection.search(np.ones(D, np.float32), 1)
            if not hits.lacks:
                return
        assert asyncio.get_running_loop().time() < until, "Milvus did not come back"
        await asyncio.sleep(0.2)
