"""Co-attention: how well the query agrees with the clusters of each candidate (Hu and Bors 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.inference.padding import bucket, padded
from landseer.ensemble.inference.triton import Triton

OUTPUTS = ("scores", "cluster_weights")
"""Of the `coattention` graph."""
BUCKETS = (10, 25, 50, 100, 250, 500, 1000)
"""Candidates are padded to one of these counts: Triton batches only equal shapes. The default, 100, needs none."""


@dataclass(frozen=True, kw_only=True)
class Coattention:
    """Scores and weights of C candidates."""

    scores: NDArray[np.float32]
    """[C], cosines; -1 for a candidate without clusters."""
    weights: NDArray[np.float32]
    """[C, K], softmax over the clusters of each candidate; 0 for padding."""


async def coattend(
    triton: Triton,
    query_vector: NDArray[np.float32],
    clusters: NDArray[np.float16],
    counts: NDArray[np.int32],
    deadline: Deadline,
    *,
    most: int,
) -> Coattention:
    """Score candidates against a query. query_vector: [P]; clusters: [C, K, P]; counts: [C]; C from 1 to `most`."""
    inputs = graph_inputs(query_vector, clusters, counts, most=most)
    return of_outputs(await triton.infer("coattention", inputs, OUTPUTS, deadline), len(counts))


def graph_inputs(
    query_vector: NDArray[np.float32], clusters: NDArray[np.float16], counts: NDArray[np.int32], *, most: int
) -> dict[str, NDArray[Any]]:
    """Return the inputs of the `coattention` graph, candidates padded to a bucket; as `coattend` takes them."""
    slots = bucket(len(counts), BUCKETS, most)
    return {
        "query_vector": query_vector[None],
        "candidate_clusters": padded(clusters, slots)[None],
        "candidate_counts": padded(counts, slots)[None],
    }


def of_outputs(outputs: Mapping[str, NDArray[Any]], candidates: int) -> Coattention:
    """Return the graph's `OUTPUTS` for the first `candidates`; the rest is padding."""
    return Coattention(scores=outputs["scores"][0, :candidates], weights=outputs["cluster_weights"][0, :candidates])
