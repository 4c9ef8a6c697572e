"""The similarity of two aggregated pictures: the selective match kernel.

K(X, Y) = gamma(X) gamma(Y) * sum over shared words c of w_c * sigma(u_c); u_c is the inner product of the residuals, or
for bits 1 - 2 h / D with their Hamming distance h; sigma(u) = sign(u) |u|^alpha above tau, else 0 (Tolias et al.,
2013). Where the sources differ:

- D2R: alpha 3, tau 0, w = 1, gamma = 1 for R-ASMK and 1 / sqrt(number of words) for ASMK. If one side has no words,
  the similarity is -1 [TF2 DELF].
- HOW, the `asmk` package: gamma = 1 / sqrt(sum of w over the words); optionally w = log(N / pictures with c)^2;
  u >= tau instead of u > tau. It divides h by the number of *stored* bits, a multiple of 32: with D = 24, codes that
  are opposite in all values score -0.5. DELF stores a multiple of 8 bits, and divides by that. We divide by D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Aggregated, Binary
from landseer.ensemble.asmk.bits import hamming, lanes

Floats = NDArray[np.floating[Any]]
Picture = TypeVar("Picture", Aggregated, Binary)

NOTHING = -1.0
"""The similarity to a picture without words."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The parameters of a kernel. The defaults are those of R-ASMK*."""

    alpha: float = 3.0
    """Exponent; larger values suppress weak matches."""
    tau: float = 0.0
    """Threshold: similarities at or below it count 0."""
    normalised: bool = False
    """Whether to divide by the root of the sum of a picture's word weights."""
    idf: bool = False
    """Whether to weight words by inverse document frequency."""

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"got alpha = {self.alpha}; expected a value above 0")

    def selected(self, similarities: Floats) -> NDArray[np.float64]:
        """Return sigma of similarities, any shape."""
        u = np.asarray(similarities, np.float64)
        return np.where(u > self.tau, np.sign(u) * np.abs(u) ** self.alpha, 0.0)

    def by_distance(self, bits: int) -> NDArray[np.float64]:
        """Return sigma for each Hamming distance 0 .. bits of codes of `bits`: [bits + 1]."""
        return self.selected(1.0 - 2.0 * np.arange(bits + 1) / bits)


KERNELS: dict[str, Kernel] = {
    "r-asmk": Kernel(),
    "asmk": Kernel(normalised=True),
    "how": Kernel(normalised=True),
    "how-idf": Kernel(normalised=True, idf=True),
}
"""The kernels of the papers. R-ASMK* is "r-asmk" over bits; "how" is "asmk" with five words per query feature."""
INNER_PRODUCT = Kernel(alpha=1.0, tau=-2.0)
"""The kernel of VLAD and R-VLAD: no threshold, no exponent."""


def idf(counts: NDArray[np.integer[Any]], pictures: int) -> NDArray[np.float64]:
    """Return the weight of each word from the number of pictures that contain it: log(pictures / count)^2, [K].

    1 for unused words, as in the `asmk` package: they match nothing, but count in a query's norm.
    """
    there = np.maximum(counts, 1)
    return np.where(counts > 0, np.log(max(pictures, 1) / there) ** 2, 1.0)


def similarity(query: Picture, candidate: Picture, kernel: Kernel, *, weights: Floats | None = None) -> float:
    """Return the similarity of two pictures by definition: the reference for `InvertedFile`.

    weights: [K] of all words; None for equal weights. -1 if either picture has no words.
    """
    if not len(query.words) or not len(candidate.words):
        return NOTHING
    words, mine, theirs = np.intersect1d(query.words, candidate.words, assume_unique=True, return_indices=True)
    matches = _matches(query, candidate, mine, theirs, kernel)
    # Summed in order, as in the inverted file.
    score = (
        float(np.add.accumulate(matches if weights is None else matches * weights[words])[-1]) if len(words) else 0.0
    )
    return normalised(score, norm(query.words, weights), norm(candidate.words, weights)) if kernel.normalised else score


def norm(words: NDArray[np.integer[Any]], weights: Floats | None) -> float:
    """Return the sum of the weights of a picture's words [W]."""
    return float(len(words)) if weights is None else float(np.asarray(weights, np.float64)[words].sum())


def normalised(score: float, query: float, candidate: float) -> float:
    """Divide by the roots of both norms; 0 if either norm is 0, as with words that every picture has."""
    return score / float(np.sqrt(query) * np.sqrt(candidate)) if query > 0 and candidate > 0 else 0.0


def _matches(query: Picture, candidate: Picture, mine: Any, theirs: Any, kernel: Kernel) -> NDArray[np.float64]:
    """Return sigma(u) of the shared words, [S]."""
    if isinstance(query, Binary) and isinstance(candidate, Binary):
        if query.bits != candidate.bits:
            raise ValueError(f"got codes of {query.bits} and {candidate.bits} bits; use the same codebook for both")
        apart = hamming(lanes(query.codes[mine]), lanes(candidate.codes[theirs]))
        return kernel.by_distance(query.bits)[apart]
    if isinstance(query, Aggregated) and isinstance(candidate, Aggregated):
        pairs = query.vectors[mine].astype(np.float64) * candidate.vectors[theirs]
        return kernel.selected(pairs.sum(axis=1))
    raise TypeError("got bits for one picture and vectors for the other; binarise both, or neither")
