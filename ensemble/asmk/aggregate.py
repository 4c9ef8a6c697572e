"""Local features become one representation of a picture: VLAD, ASMK, and both over regions.

For the features F_c of word c, with centroid q_c, the residual is V(F_c) = sum over f in F_c of f - q_c. VLAD is all of
them, one after the other, at unit norm (Jegou et al. 2010). ASMK has each word's at unit norm (Tolias et al. 2013);
ASMK* its signs. Over the regions of a picture (D2R), region 0 being always the whole of it:

- R-VLAD is the mean of the regions' VLADs, each at unit norm as one vector of K * D values.
- R-ASMK is R-VLAD with each word at unit norm again; R-ASMK* its signs, taken after all of that.
- Naive R-ASMK is the mean of the regions' ASMKs, each divided by the root of its number of words (their gamma), with
  no norm after. This is our reading: there is no public code of it.

A region without features counts in the mean. A word whose residual is no longer than 1e-6 is left out [TF2 DELF]; the
`asmk` package keeps it, as zeros. Sums are in fp64, so that the order of the features hardly matters.
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
"""A residual no longer than this says nothing of its direction."""
Sums = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Binary:
    """The words of a picture, and for each the signs of its residual."""

    words: Words
    """[W], ascending."""
    codes: Packed
    """[W, ceil(bits / 8)], as `binarise` packs them."""
    bits: int
    """D, the number of bits that say something."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aggregated:
    """The words of a picture, and for each its residual."""

    words: Words
    """[W], ascending."""
    vectors: Features
    """[W, D]."""

    def binarised(self) -> Binary:
        """Return the signs: ASMK of them is ASMK*, R-ASMK R-ASMK*."""
        return Binary(words=self.words, codes=binarise(self.vectors), bits=self.vectors.shape[1])


def rvlad(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return R-VLAD of features [N, D], without the words that are all zeros, as D2R has it.

    counts: how many of the features, which lie region after region, belong to each; the first is the whole picture.
    multiple: how many words a feature counts for.
    """
    regional = _residuals(features, counts, codebook, multiple)
    squares = np.bincount(regional.regions, np.square(regional.sums).sum(axis=1), minlength=len(counts))
    # Divided by the longer of norm and 1e-6, as tf.math.l2_normalize does.
    scales = 1.0 / np.maximum(np.sqrt(squares), SHORTEST)
    return _mean(regional, scales[regional.regions, None], len(counts))


def asmk(features: Features, codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return ASMK of features [N, D]: each word's residual at unit norm."""
    regional = _residuals(features, [len(features)], codebook, multiple)
    return _unit(Aggregated(words=regional.words, vectors=_single(regional.sums)), regional.sums)


def rasmk(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return R-ASMK of features [N, D] in regions of `counts`: see `rvlad`. As large as ASMK."""
    whole = rvlad(features, counts, codebook, multiple=multiple)
    return _unit(whole, whole.vectors.astype(np.float64))


def naive_rasmk(features: Features, counts: Sequence[int], codebook: Codebook, *, multiple: int = 1) -> Aggregated:
    """Return naive R-ASMK of features [N, D] in regions of `counts`: see `rvlad`. No word is longer than 1."""
    regional = _residuals(features, counts, codebook, multiple)
    norms = np.linalg.norm(regional.sums, axis=1)
    kept = norms > SHORTEST
    regional = _Residuals(regions=regional.regions[kept], words=regional.words[kept], sums=regional.sums[kept])
    words = np.bincount(regional.regions, minlength=len(counts))[regional.regions]
    return _mean(regional, 1.0 / (norms[kept] * np.sqrt(words))[:, None], len(counts))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Residuals:
    """The residuals of all regions, by region, then by word."""

    regions: Words
    """[n], ascending."""
    words: Words
    """[n], ascending within a region."""
    sums: Sums
    """[n, D]."""


def _residuals(features: Features, counts: Sequence[int], codebook: Codebook, multiple: int) -> _Residuals:
    rows = checked(features, codebook.dimension)
    if min(counts, default=0) < 0 or sum(counts) != len(rows):
        raise ValueError(f"got {len(rows)} features for regions of {list(counts)}; expected as many as their sum")
    words = codebook.assign(rows, multiple=multiple).ravel()
    features64 = np.repeat(rows, multiple, axis=0).astype(np.float64)
    regions = np.repeat(np.arange(len(counts)), np.asarray(counts, np.int64) * multiple)
    places, sums = _summed(regions * codebook.words + words, features64 - codebook.centroids[words])
    return _Residuals(regions=places // codebook.words, words=places % codebook.words, sums=sums)


def _mean(regional: _Residuals, scales: Sums, regions: int) -> Aggregated:
    words, sums = _summed(regional.words, regional.sums * scales)
    return Aggregated(words=words, vectors=_single(sums / max(regions, 1)))


def _summed(places: Words, rows: Sums) -> tuple[Words, Sums]:
    """Return the different places [m], ascending, and the sums [m, D] of the rows [n, D] of each."""
    order = np.argsort(places, kind="stable")
    found, first = np.unique(places[order], return_index=True)
    return found, np.add.reduceat(rows[order], first, axis=0) if len(rows) else rows


def _unit(aggregated: Aggregated, sums: Sums) -> Aggregated:
    norms = np.linalg.norm(sums, axis=1)
    kept = norms > SHORTEST
    return Aggregated(words=aggregated.words[kept], vectors=_single(sums[kept] / norms[kept, None]))


def _single(values: NDArray[np.floating[Any]]) -> Features:
    return values.astype(np.float32)
