"""LAttQE by the served network (Gordo et al. 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.deadline import Deadline
from landseer.ensemble.inference.padding import bucket, padded
from landseer.ensemble.inference.triton import Triton

BUCKETS = (8, 16, 32, 64)
"""Numbers of neighbours that are padded to: Triton batches only equal shapes."""


async def expand(
    triton: Triton, query: NDArray[np.float32], neighbours: NDArray[np.float32], deadline: Deadline, *, most: int
) -> NDArray[np.float32]:
    """Return the expanded query, float32 [D], unit norm.

    query: [D]; neighbours: [k, D], nearest first, k from 1 to `most`, the number the model takes.
    """
    outputs = await triton.infer("lattqe", graph_inputs(query, neighbours, most=most), ["expanded"], deadline)
    expanded: NDArray[np.float32] = outputs["expanded"][0]
    return expanded


def graph_inputs(query: NDArray[np.float32], neighbours: NDArray[np.float32], *, most: int) -> dict[str, NDArray[Any]]:
    """Return the inputs of the `lattqe` graph, a batch of one, padded to a bucket. For the arguments see `expand`."""
    slots = bucket(len(neighbours), BUCKETS, most)
    return {
        "query": query[None],
        "neighbours": padded(neighbours, slots)[None],
        "neighbour_mask": (np.arange(slots) < len(neighbours))[None],
    }
