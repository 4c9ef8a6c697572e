"""LAttDBA's weights in process, by the served `lattqe` graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.profile import Profile
from landseer.ops.backend.inprocess import infer, settings_of
from landseer.ops.backend.runner import Runner
from landseer.ops.errors import OpsError

Floats = NDArray[np.float32]
BATCH = 16
"""Number of vectors per inference."""


class GraphAttention:
    """The exported network as `augmentation.Attention`. Not thread-safe."""

    def __init__(self, repository: Path, profile: Profile, *, threads: int) -> None:
        self.sha256 = _sha256(repository)
        """Of the graph."""
        self._runner = Runner(settings_of("lattqe", repository, profile.version, threads=threads))

    def __call__(self, queries: Floats, neighbours: Floats) -> Floats:
        """Return the network's weights, [n, k], of queries [n, D] and neighbours [n, k, D], nearest first."""
        starts = range(0, len(queries), BATCH)
        found = [self._weights(queries[i : i + BATCH], neighbours[i : i + BATCH]) for i in starts]
        return np.concatenate(found)[:, 1:]

    def _weights(self, queries: Floats, neighbours: Floats) -> Floats:
        mask = np.ones(neighbours.shape[:2], np.bool_)
        inputs = {"query": queries, "neighbours": neighbours, "neighbour_mask": mask}
        return np.asarray(infer(self._runner, inputs, ("weights",))["weights"], np.float32)


def _sha256(repository: Path) -> str:
    path = repository / "manifest.json"
    try:
        return str(json.loads(path.read_text())["graphs"]["lattqe"]["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise OpsError(f"{path} does not name a `lattqe` graph; run: python export/all.py") from error
