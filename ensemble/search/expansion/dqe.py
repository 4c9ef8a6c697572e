"""DQE: a linear SVM for each query, its nearest neighbours against some of the lowest ranked.

Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012; the numbers as
in LAttQE's table: C = 0.1, the 4 nearest and the query as positives, 5 of the lowest ranked as negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.search.expansion.svm import linear_svm

PENALTY = 0.1
NEGATIVES = 5


def discriminative(
    query: NDArray[np.floating[Any]], positives: NDArray[np.floating[Any]], negatives: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """Return the direction that divides best, float32 [D], of unit norm: ranking by it is ranking by the SVM.

    query: [D]; positives: [k, D], the nearest; negatives: [m, D], the lowest ranked. Without positives or negatives
    there is nothing to divide, and the query stays as it was. A picture on both sides, of an index smaller than both
    together, counts as positive only.
    """
    negatives = negatives[~(negatives[:, None] == positives[None]).all(axis=-1).any(axis=1)]
    if not len(positives) or not len(negatives):
        return np.asarray(query, np.float32)
    samples = np.concatenate([query[None], positives, negatives]).astype(np.float64)
    signs = np.concatenate([np.ones(1 + len(positives)), -np.ones(len(negatives))])
    weights = linear_svm(samples, signs, penalty=PENALTY)
    norm = float(np.linalg.norm(weights))
    return np.asarray(weights / norm if norm > 0 else query, np.float32)
