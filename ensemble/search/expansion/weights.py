"""The classical weightings, and the sum that all methods share. Pure numpy, over any number of queries at a time.

similarities: [..., k], cosines of a query with its neighbours, best first. Weights: [..., k + 1], the query's first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
ALPHA = 3.0
"""Of alphaQE, as its authors chose it."""
TEMPERATURE = 1.0
"""Of LAttDBA, unless one was learned: a neighbour that the network weighs 1 less gets a third of the share.

The paper's form, whose weights are cosines near 1, wants about 0.1."""


def aqe(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """All alike (Chum et al., ICCV 2007)."""
    return np.ones((*similarities.shape[:-1], similarities.shape[-1] + 1))


def aqewd(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """Decaying with the rank, w_i = (k - i) / k, as LAttQE's paper tables it: the last neighbour weighs nothing."""
    return _decaying(similarities, first=0)


def aqewd_dir(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """Decaying with the rank: 1, then 1, (k - 1) / k .. 1 / k, as the code of DIR's authors has it."""
    return _decaying(similarities, first=1)


def alpha_qe(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """The similarity to the power of alpha (Radenovic et al., TPAMI 2019). Nothing points away: below 0 weighs 0."""
    return _with_query(np.clip(similarities, 0.0, None) ** alpha)


def tempered(similarities: Floats, temperature: float = TEMPERATURE) -> Floats:
    """The softmax of all k + 1 similarities over the temperature, the query's with itself, 1, among them.

    LAttDBA's weights (Gordo et al., ECCV 2020, section 3.4); the similarities are the network's weights, cos(q~, d~) in
    the paper. T near 0 leaves the query alone, a large one weighs all alike. temperature: above 0.
    """
    logits = _with_query(similarities).astype(np.float64) / temperature
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return shares


WEIGHTINGS: Mapping[str, Callable[[Floats, float], Floats]] = {
    "aqe": aqe,
    "aqewd": aqewd,
    "aqewd-dir": aqewd_dir,
    "alphaqe": alpha_qe,
}


def combined(query: Floats, neighbours: Floats, weights: Floats) -> NDArray[np.float32]:
    """Return the expanded query, float32 [..., D], of unit norm.

    query: [..., D]; neighbours: [..., k, D]; weights: [..., k + 1]. A sum that is nothing leaves the query as it was.
    """
    first = np.asarray(weights[..., :1] * query, np.float64)
    total = first + np.einsum("...k,...kd->...d", weights[..., 1:], neighbours)
    norms = np.linalg.norm(total, axis=-1, keepdims=True)
    vanished = norms < np.finfo(np.float32).eps
    unit = np.divide(total, norms, where=~vanished, out=np.zeros_like(total))
    return np.asarray(np.where(vanished, query, unit), np.float32)


def _decaying(similarities: Floats, *, first: int) -> Floats:
    """Return 1 for the query and (k - i + first) / k for the neighbours i = 1 .. k."""
    count = similarities.shape[-1]
    steps = (count - np.arange(1, count + 1) + first) / max(count, 1)
    return _with_query(np.broadcast_to(steps, similarities.shape))


def _with_query(weights: Floats) -> Floats:
    return np.concatenate([np.ones((*weights.shape[:-1], 1)), weights], axis=-1)
