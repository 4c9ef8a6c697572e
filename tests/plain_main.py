"""Main indexes of a few lines: exact, or with rough scores like a quantised one. They stand in for FAISS."""

from __future__ import annotations

import numpy as np

from landseer.ensemble.index.index_setting import IndexSetting


class PlainMain:
    """Compares queries with all vectors."""

    name, exact = "plain", True
    factory = "Flat"

    def __init__(self, keys, vectors):
        order = np.argsort(keys)
        self.keys, self._vectors = np.asarray(keys, np.int64)[order], np.asarray(vectors, np.float32)[order]
        self.setting = IndexSetting(factory=self.factory)
        self.dimension, self.size = self._vectors.shape[1], len(keys)

    def rough(self, queries):
        return queries @ self._vectors.T

    def search(self, queries, k, selection=None):
        allowed = np.arange(self.size) if selection is None else np.flatnonzero(selection.has(self.keys))
        scores = self.rough(queries)[:, allowed]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return self.keys[allowed][order], np.take_along_axis(scores, order, axis=1).astype(np.float32)

    def save(self, folder):
        np.savez(folder / "plain.npz", keys=self.keys, vectors=self._vectors)

    @classmethod
    def load(cls, folder, *, threads):
        with np.load(folder / "plain.npz") as found:
            return cls(found["keys"], found["vectors"])

    @classmethod
    def build(cls, setting, dimension, batches, *, expected, threads, sampled=None, progress=None, stop=None):
        found = list(batches())
        keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in found)])
        vectors = np.concatenate([np.empty((0, dimension), np.float32), *(vectors for _, vectors in found)])
        return cls(keys, vectors)


class RoughMain(PlainMain):
    """Knows only the signs of the vectors."""

    name, exact = "rough", False
    factory = "Rough"

    def rough(self, queries):
        return queries @ np.sign(self._vectors).T
