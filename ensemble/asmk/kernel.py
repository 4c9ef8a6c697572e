"""How alike two aggregated pictures are: the selective match kernel.

K(X, Y) = gamma(X) gamma(Y) * sum over shared words c of w_c * sigma(u_c); u_c is the inner product of the residuals, or
for bits 1 - 2 h / D with their Hamming distance h; sigma(u) = sign(u) |u|^alpha above tau, else 0 (Tolias et al.,
2013). Where the sources differ:

- D2R: alpha 3, tau 0, w = 1, gamma = 1 for R-ASMK and 1 / sqrt(number of words) for ASMK. Without a word on one side
  it is -1 [TF2 DELF].
- HOW, the `asmk` package: gamma = 1 / sqrt(sum of w over the words) and, if asked for, w = log(N / pictures with
  c)^2; u >= tau instead of u > tau. Its h is divided by the bits *stored*, a multiple of 32: with D = 24, codes that
  are opposite in all values score -0.5. DELF stores multiples of 8, and divides likewise. We divide by D.
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
    """The settings of a kernel. The defaults are those of R-ASMK*."""

    alpha: float = 3.0
    """How little a weak match counts."""
    tau: float = 0.0
    """The similarity that a match must exceed."""
    normalised: bool = False
    """Whether a picture is divided by the root of the sum of its words' weights."""
    idf: bool = False
    """Whether words are weighted by how few pictures have them."""

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"got alpha = {self.alpha}; expected more than 0")

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
"""The kernels of the papers. R-ASMK* is "r-asmk" over bits; "how" is "asmk", with five words to a query's feature."""
INNER_PRODUCT = Kernel(alpha=1.0, tau=-2.0)
"""That of VLAD and R-VLAD: nothing is weakened or left out."""


def idf(counts: NDArray[np.integer[Any]], pictures: int) -> NDArray[np.float64]:
    """Return the weight of each word from the number of pictures that have it: log(pictures / count)^2, [K].

    1 for a word that none has, as in the `asmk` package: it matches nothing, but counts in a query's norm.
    """
    there = np.maximum(counts, 1)
    return np.where(counts > 0, np.log(max(pictures, 1) / there) ** 2, 1.0)


def similarity(query: Picture, candidate: Picture, kernel: Kernel, *, weights: Floats | None = None) -> float:
    """Return how alike two pictures are: the definition, one pair at a time, for `InvertedFile` to be held against.

    weights: [K] of all words; None weighs all alike. -1 if either has no word.
    """
    if not len(query.words) or not len(candidate.words):
        return NOTHING
    words, mine, theirs = np.intersect1d(query.words, candidate.words, assume_unique=True, return_indices=True)
    matches = _matches(query, candidate, mine, theirs, kernel)
    # One after the other, as an inverted file adds them up.
    score = (
        float(np.add.accumulate(matches if weights is None else matches * weights[words])[-1]) if len(words) else 0.0
    )
    return normalised(score, norm(query.words, weights), norm(candidate.words, weights)) if kernel.normalised else score


def norm(words: NDArray[np.integer[Any]], weights: Floats | None) -> float:
    """Return the sum of the weights of a picture's words [W]."""
    return float(len(words)) if weights is None else float(np.asarray(weights, np.float64)[words].sum())


def normalised(score: float, query: float, candidate: float) -> float:
    """Divide by the root of both norms; 0 if either is 0, as when every picture has the words."""
    return score / float(np.sqrt(query) * np.sqrt(candidate)) if query > 0 and candidate > 0 else 0.0


def _matches(query: Picture, candidate: Picture, mine: Any, theirs: Any, kernel: Kernel) -> NDArray[np.float64]:
    """Return sigma(u) of the shared words, [S]."""
    if isinstance(query, Binary) and isinstance(candidate, Binary):
        if query.bits != candidate.bits:
            raise ValueError(f"got codes of {query.bits} and of {candidate.bits} bits; expected the same codebook")
        apart = hamming(lanes(query.codes[mine]), lanes(candidate.codes[theirs]))
        return kernel.by_distance(query.bits)[apart]
    if isinstance(query, Aggregated) and isinstance(candidate, Aggregated):
        pairs = query.vectors[mine].astype(np.float64) * candidate.vectors[theirs]
        return kernel.selected(pairs.sum(axis=1))
    raise TypeError("got one picture of bits and one of vectors; binarise both, or neither")
