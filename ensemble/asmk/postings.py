"""Posting lists: for each word, the pictures that contain it and their residuals, in immutable arrays.

The list of word c is [offsets[c], offsets[c + 1]) of `slots` and `codes`. A picture has at most one posting per word. A
posting of 128 bits takes 20 bytes, a picture 12 besides its postings, a word 8, used or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import Lanes, differing, lanes

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK = 16384
"""Postings compared at once, so that intermediate arrays fit in the processor's cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Postings:
    """The lists of n pictures over K words."""

    keys: Keys
    """[n], of the pictures."""
    sizes: NDArray[np.int32]
    """[n], number of words of each picture."""
    offsets: NDArray[np.int64]
    """[K + 1], start of each word's list."""
    slots: NDArray[np.uint32]
    """[P], the picture of each posting, as a row of `keys`; ascending within a word."""
    codes: Lanes
    """[L, P], the bits of each residual, in the layout of `lanes`."""

    @classmethod
    def of(cls, keys: Keys, pictures: Sequence[Binary], *, words: int, bits: int) -> Postings:
        """Build the lists of pictures under keys [n]. words: K; bits: of each code."""
        sizes = np.array([len(picture.words) for picture in pictures], np.int32)
        flat = np.concatenate([np.empty(0, np.int64), *(picture.words for picture in pictures)])
        codes = np.concatenate([np.empty((0, -(-bits // 8)), np.uint8), *(picture.codes for picture in pictures)])
        order = np.argsort(flat, kind="stable")
        return cls(
            keys=keys,
            sizes=sizes,
            offsets=_offsets(np.bincount(flat, minlength=words)),
            slots=np.repeat(np.arange(len(keys), dtype=np.uint32), sizes)[order],
            codes=np.take(lanes(codes), order, axis=1),
        )

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of pictures that contain each word: [K]."""
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return sum(array.nbytes for array in (self.keys, self.sizes, self.offsets, self.slots, self.codes))

    def words(self) -> NDArray[np.int64]:
        """Return the word of each posting: [P], ascending."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def norms(self, weights: Floats) -> Floats:
        """Return the sum of the weights [K] of each picture's words: [n]."""
        sums = np.bincount(self.slots, np.repeat(weights, self.counts), minlength=len(self.keys))
        return sums.astype(np.float64)

    def shared(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many of the distinct words [W] each picture contains: [n]."""
        places, _ = self._places(words)
        return np.bincount(self.slots[places], minlength=len(self.keys))

    def score(
        self, words: NDArray[np.int64], codes: Lanes, matches: Floats, weights: Floats | None
    ) -> tuple[Floats, Mask]:
        """Return each picture's score for distinct words [W] with codes [L, W], and whether it shares any: [n] each.

        matches: [bits + 1], the value of a match at each Hamming distance; weights: [K], of the words. Summed in the
        order of the given words, so that a picture's score does not depend on the other pictures.
        """
        totals, met = np.zeros(len(self.keys)), np.zeros(len(self.keys), np.bool_)
        places, origins = self._places(words)
        for first in range(0, len(places), BLOCK):
            place, which = places[first : first + BLOCK], origins[first : first + BLOCK]
            apart = [
                np.take(mine, place) ^ np.take(asked, which) for mine, asked in zip(self.codes, codes, strict=True)
            ]
            worth, slots = np.take(matches, differing(apart, len(place))), np.take(self.slots, place)
            np.add.at(totals, slots, worth if weights is None else worth * weights[words[which]])
            met[slots] = True
        return totals, met

    def _places(self, words: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of all postings of words [W], list by list, and the index of each one's word: [p] each."""
        begins, lengths = self.offsets[words], self.offsets[words + 1] - self.offsets[words]
        before = _offsets(lengths)
        places = np.arange(before[-1]) + np.repeat(begins - before[:-1], lengths)
        return places, np.repeat(np.arange(len(words)), lengths)


def merged(parts: Sequence[Postings], alive: Sequence[Mask]) -> Postings:
    """Merge parts into one, keeping the order of pictures and dropping those not alive [n].

    Needs no sorting: a part's postings of a word are appended to those of the previous parts.
    """
    kept = [_kept(part, mask) for part, mask in zip(parts, alive, strict=True)]
    offsets = _offsets(np.sum([part.counts for part in kept], axis=0))
    slots = np.empty(offsets[-1], np.uint32)
    codes = np.empty((len(kept[0].codes), offsets[-1]), np.uint64)
    begins, pictures = offsets[:-1].copy(), 0
    for part in kept:
        places = np.arange(len(part.slots)) + np.repeat(begins - part.offsets[:-1], part.counts)
        slots[places], codes[:, places] = part.slots + np.uint32(pictures), part.codes
        begins += part.counts
        pictures += len(part.keys)
    keys, sizes = (np.concatenate([getattr(part, name) for part in kept]) for name in ("keys", "sizes"))
    return Postings(keys=keys, sizes=sizes, offsets=offsets, slots=slots, codes=codes)


def _kept(part: Postings, alive: Mask) -> Postings:
    """Return the postings without pictures that are not alive [n]."""
    if alive.all():
        return part
    living = alive[part.slots]
    counts = np.bincount(part.words()[living], minlength=len(part.offsets) - 1)
    renamed = (np.cumsum(alive) - 1).astype(np.uint32)
    return Postings(
        keys=part.keys[alive],
        sizes=part.sizes[alive],
        offsets=_offsets(counts),
        slots=renamed[part.slots[living]],
        codes=part.codes[:, living],
    )


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the start of each list of these lengths, and the end of the last: [n + 1]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
