"""LAttQE by the served network (Gordo et al. 2020)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.inference.padding import bucket, padded
from landseer.ensemble.inference.triton import Triton

BUCKETS = (8, 16, 32, 64)
"""Numbers of neighbours that are padded to: Triton batches only equal shapes."""


class Expanded(NamedTuple):
    """A query that was expanded by its neighbours."""

    vector: NDArray[np.float32]
    """[D], of unit norm."""
    relevance: NDArray[np.float32] = np.empty(0, np.float32)
    """[k]: the probability that each neighbour shows the same thing; empty if that is not known."""


async def expand(
    triton: Triton, query: NDArray[np.float32], neighbours: NDArray[np.float32], deadline: Deadline, *, most: int
) -> Expanded:
    """Expand a query [D] by neighbours [k, D], nearest first, k from 1 to `most`, the number the model takes."""
    inputs = graph_inputs(query, neighbours, most=most)
    outputs = await triton.infer("lattqe", inputs, ["expanded", "relevance"], deadline)
    return Expanded(vector=outputs["expanded"][0], relevance=outputs["relevance"][0, : len(neighbours)])


def graph_inputs(query: NDArray[np.float32], neighbours: NDArray[np.float32], *, most: int) -> dict[str, NDArray[Any]]:
    """Return the inputs of the `lattqe` graph, a batch of one, padded to a bucket. For the arguments see `expand`."""
    slots = bucket(len(neighbours), BUCKETS, most)
    return {
        "query": query[None],
        "neighbours": padded(neighbours, slots)[None],
        "neighbour_mask": (np.arange(slots) < len(neighbours))[None],
    }
