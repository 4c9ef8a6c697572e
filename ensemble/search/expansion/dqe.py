"""DQE: a linear SVM for each query, trained on its nearest neighbours against some of the lowest ranked.

Arandjelovic and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012. The
numbers are those of LAttQE's table: C = 0.1; the query and the 4 nearest are positives, the 5 lowest ranked negatives.
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
    """Return the SVM's weight vector, float32 [D], of unit norm: ranking by it is ranking by the SVM.

    query: [D]; positives: [k, D], the nearest; negatives: [m, D], the lowest ranked. Without positives or negatives
    the query is returned unchanged. In a small index a picture may be on both sides; it then counts as positive only.
    """
    negatives = negatives[~(negatives[:, None] == positives[None]).all(axis=-1).any(axis=1)]
    if not len(positives) or not len(negatives):
        return np.asarray(query, np.float32)
    samples = np.concatenate([query[None], positives, negatives]).astype(np.float64)
    signs = np.concatenate([np.ones(1 + len(positives)), -np.ones(len(negatives))])
    weights = linear_svm(samples, signs, penalty=PENALTY)
    norm = float(np.linalg.norm(weights))
    return np.asarray(weights / norm if norm > 0 else query, np.float32)
