"""The weightings that need no network, and the sum that all methods share. Pure numpy, for any number of queries.

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
TEMPERATURE = 0.3
"""Default T of LAttDBA: a neighbour whose weight is 1 lower gets a thirtieth of the share. Held-out things chose it for
the network that ships (docs/reports/expansion-sweep.md).

The paper's network, whose weights are cosines near 1, needs about 0.1."""
# fmt: off
CURVE: tuple[float, ...] = (
    1.0,
    1.9061, 1.7016, 1.3105, 1.0555, 0.7159, 0.5351, 0.6525, 0.5331, 0.5125, 0.5156, 0.4354, 0.5161,
    0.4017, 0.3607, 0.3449, 0.3459, 0.2927, 0.4140, 0.3273, 0.2236, 0.2386, 0.2777, 0.2041, 0.1318,
    0.1579, 0.1302, 0.1590, 0.1516, 0.0649, 0.1023, 0.0890, 0.0533, 0.0546, -0.0079, -0.0113, -0.0048,
    0.0290, -0.0495, 0.0521, -0.0173, -0.0478, -0.0555, -0.0470, -0.0797, -0.1026, -0.0670, -0.0672, -0.0724,
    -0.1289, -0.1019, -0.1190, -0.1524, -0.1361, -0.1351, -0.1152, -0.1576, -0.1561, -0.1028, -0.1716, -0.1733,
    -0.1858, -0.2026, -0.2184, -0.2492,
)
# fmt: on
"""Of `rank_curve`: the query's weight, then those of ranks 1 to 64."""


def aqe(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """1 for all (Chum et al., ICCV 2007)."""
    return np.ones((*similarities.shape[:-1], similarities.shape[-1] + 1))


def aqewd(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """Decaying with the rank, w_i = (k - i) / k, as in LAttQE's paper: the last neighbour weighs 0."""
    return _decaying(similarities, first=0)


def aqewd_dir(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """Decaying with the rank: 1, then 1, (k - 1) / k .. 1 / k, as in the code of DIR's authors."""
    return _decaying(similarities, first=1)


def alpha_qe(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """The similarity to the power of alpha (Radenovic et al., TPAMI 2019); 0 for similarities below 0."""
    return _with_query(np.clip(similarities, 0.0, None) ** alpha)


def rank_curve(similarities: Floats, alpha: float = ALPHA) -> Floats:
    """One learned weight for each rank, the same for every query. This is not LAttQE: it reads no descriptor.

    The last weights are below zero: they subtract what all neighbours have in common, wrong ones included. `CURVE` is
    for 64 neighbours; for fewer it is stretched over their ranks. Cut off, it would lose its negative end: with 32
    neighbours and descriptors of one scale, 16.1 mAP becomes 7.1 on DVD covers (no expansion 21.7) and 65.4 becomes
    61.0 on 400 pictures of packages.

    `landseer train lattqe grocery:DIR,Fruit,Vegetables` learned it (default descriptor, seed 0, 7 epochs): the mean of
    three `RelationalLAttQE` without cosines, whose weights for 64 neighbours it equals to 5e-5. Validation mAP: 80.4,
    AQE 72.0, the same network with cosines 79.5.

    It helps where a query has tens of positives: landmarks (photographs not in this repository), 49.8 to 54.0 mAP at 64
    neighbours. It harms where a query has few: DVD covers, four positives each, 27.3 to 17.2.
    """
    count, ranks = similarities.shape[-1], len(CURVE) - 1
    places = (np.arange(count) + 0.5) * ranks / max(count, 1) + 0.5
    return _with_query(np.broadcast_to(np.interp(places, np.arange(1, ranks + 1), CURVE[1:]), similarities.shape))


def tempered(similarities: Floats, temperature: float = TEMPERATURE) -> Floats:
    """LAttDBA's weights: softmax(w / T) over all k + 1, w = 1 for the query (Gordo et al., ECCV 2020, section 3.4).

    similarities: the network's weights w, cos(q~, d~) in the paper. temperature: T, above 0; near 0 only the query
    counts, a large T weighs all equally.
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
    "rank-curve": rank_curve,
}


def combined(query: Floats, neighbours: Floats, weights: Floats) -> NDArray[np.float32]:
    """Return the expanded query, float32 [..., D], of unit norm.

    query: [..., D]; neighbours: [..., k, D]; weights: [..., k + 1], of any sign. If the sum vanishes, the query stays.
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
