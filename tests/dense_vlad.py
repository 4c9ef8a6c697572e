"""VLAD as one long vector, as the references hold it."""

from __future__ import annotations

import numpy as np

from landseer.ensemble.asmk.aggregate import Aggregated, rvlad
from landseer.ensemble.asmk.codebook import Codebook, Features


def dense(aggregated: Aggregated, words: int) -> Features:
    """Return the vectors of all `words`, zeros for the words that are missing: [words * D]."""
    whole = np.zeros((words, aggregated.vectors.shape[1]), np.float32)
    whole[aggregated.words] = aggregated.vectors
    return whole.ravel()


def vlad(features: Features, codebook: Codebook) -> Aggregated:
    """Return VLAD of features [N, D]: R-VLAD of the whole picture alone."""
    return rvlad(features, [len(features)], codebook)
