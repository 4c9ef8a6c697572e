"""Aggregate local features into one representation of a picture: VLAD, ASMK, and both over regions.

For the features F_c of word c, with centroid q_c, the residual is V(F_c) = sum over f in F_c of f - q_c. VLAD is the
concatenation of the residuals, normalised as a whole (Jegou et al. 2010). ASMK normalises the residual of each word
(Tolias et al. 2013); ASMK* keeps only the signs. Over the regions of a picture (D2R), where region 0 is the whole
picture:

- R-VLAD is the mean of the regions' VLADs, each normalised as one vector of K * D values.
- R-ASMK is R-VLAD with the residual of each word normalised again; R-ASMK* keeps only the signs of that.
- Naive R-ASMK is the mean of the regions' ASMKs, each divided by the root of its number of words (their gamma), without
  normalisation afterwards. This is our reading of the paper: there is no public code.

A region without features counts in the mean. Words whose residual has a norm of at most 1e-6 are dropped [TF2 DELF];
the `asmk` package keeps them as zeros. Sums are in fp64, so that the order of the features hardly matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.bits import Packed, binarise
from landseer.ensemble.asmk.codebook import Codebook, Features, Words, checked

SHORTEST = 1e-6
"""Residuals with at most this norm have no meaningful direction."""
Sums = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Binary:
    """The words of a picture with the signs of their residuals."""

    words: Words
    """[W], ascending."""
    codes: Packed
    """[W, ceil(bits / 8)], as `binarise` packs them."""
    bits: int
    """D, the number of bits without padding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aggregated:
    """The words of a picture with their residuals."""

    words: Words
    """[W], ascending."""
    vectors: Features
    """[W, D]."""

    def binarised(self) -> Binary:
        """Keep only the signs: ASMK becomes ASMK*, R-ASMK becomes R-ASMK*."""
        return Binary(words=self.words, codes=binarise(self.vectors), bits=self.vectors.shape[1])


def rvlad(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return R-VLAD of features [N, D], as in D2R, without words that are all zeros.

    counts: number of features of each region; features are ordered by region, the first region is the whole picture.
    multiple: number of words assigned to each feature.
    """
    regional = _residuals(features, counts, codebook, multiple)
    squares = np.bincount(regional.regions, np.square(regional.sums).sum(axis=1), minlength=len(counts))
    # Divide by the norm or 1e-6, whichever is larger, as tf.math.l2_normalize does.
    scales = 1.0 / np.maximum(np.sqrt(squares), SHORTEST)
    return _mean(regional, scales[regional.regions, None], len(counts))


def asmk(features: Features, codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return ASMK of features [N, D]: the residual of each word has unit norm."""
    regional = _residuals(features, [len(features)], codebook, multiple)
    return _unit(Aggregated(words=regional.words, vectors=_single(regional.sums)), regional.sums)


def rasmk(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return R-ASMK of features [N, D], the size of ASMK. counts: see `rvlad`."""
    whole = rvlad(features, counts, codebook, multiple=multiple)
    return _unit(whole, whole.vectors.astype(np.float64))


def naive_rasmk(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return naive R-ASMK of features [N, D]; residuals have a norm of at most 1. counts: see `rvlad`."""
    regional = _residuals(features, counts, codebook, multiple)
    norms = np.linalg.norm(regional.sums, axis=1)
    kept = norms > SHORTEST
    regional = _Residuals(regions=regional.regions[kept], words=regional.words[kept], sums=regional.sums[kept])
    words = np.bincount(regional.regions, minlength=len(counts))[regional.regions]
    return _mean(regional, 1.0 / (norms[kept] * np.sqrt(words))[:, None], len(counts))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Residuals:
    """The residuals of all regions, sorted by region, then by word."""

    regions: Words
    """[n], ascending."""
    words: Words
    """[n], ascending within a region."""
    sums: Sums
    """[n, D]."""


def _residuals(features: Features, counts: Sequence[int], codebook: Codebook, multiple: int) -> _Residuals:
    rows = checked(features, codebook.dimension)
    if min(counts, default=0) < 0 or sum(counts) != len(rows):
        raise ValueError(f"got {len(rows)} features for regions of {list(counts)} features; expected their sum")
    words = codebook.assign(rows, multiple=multiple).ravel()
    features64 = np.repeat(rows, multiple, axis=0).astype(np.float64)
    regions = np.repeat(np.arange(len(counts)), np.asarray(counts, np.int64) * multiple)
    places, sums = _summed(regions * codebook.words + words, features64 - codebook.centroids[words])
    return _Residuals(regions=places // codebook.words, words=places % codebook.words, sums=sums)


def _mean(regional: _Residuals, scales: Sums, regions: int) -> Aggregated:
    words, sums = _summed(regional.words, regional.sums * scales)
    return Aggregated(words=words, vectors=_single(sums / max(regions, 1)))


def _summed(places: Words, rows: Sums) -> tuple[Words, Sums]:
    """Return the distinct places [m], ascending, and the sum [m, D] of the rows [n, D] of each."""
    order = np.argsort(places, kind="stable")
    found, first = np.unique(places[order], return_index=True)
    return found, np.add.reduceat(rows[order], first, axis=0) if len(rows) else rows


def _unit(aggregated: Aggregated, sums: Sums) -> Aggregated:
    norms = np.linalg.norm(sums, axis=1)
    kept = norms > SHORTEST
    return Aggregated(words=aggregated.words[kept], vectors=_single(sums[kept] / norms[kept, None]))


def _single(values: NDArray[np.floating[Any]]) -> Features:
    return values.astype(np.float32)
