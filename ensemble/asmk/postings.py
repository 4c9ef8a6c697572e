"""Posting lists: for each word, the pictures that contain it and their residuals, in immutable arrays.

The list of word c is [offsets[c], offsets[c + 1]) of `slots` and `codes`. A picture has at most one posting per word. A
posting of 128 bits takes 18 bytes, a picture 20 besides its postings, a word 4, used or not.

Lists are of at most `MOST` pictures: a slot takes two bytes, and the scores of all of them, added to in no order, stay
in a core's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import lanes
from landseer.ensemble.asmk.scan import Codes, Floats, Lists, Offsets, Slots, append, count, scan

Keys = NDArray[np.int64]
Words = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST = 32768
"""Pictures: their scores take 256 KB."""
_ALWAYS, _NO_CODES = np.ones(1), np.empty((0, 0), np.uint64)
"""What a match is worth if codes are not compared, and those of the words then."""
_ARRAYS = ("keys", "sizes", "offsets", "slots", "codes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Postings:
    """The lists of n pictures over K words."""

    keys: Keys
    """[n], of the pictures; at most `MOST`."""
    sizes: NDArray[np.int32]
    """[n], number of words of each picture."""
    offsets: Offsets
    """[K + 1], start of each word's list."""
    slots: Slots
    """[P], the picture of each posting, as a row of `keys`; ascending within a word."""
    codes: Codes
    """[P, L], the bits of each residual, as `lanes` gives them, but posting by posting."""
    _known: list[tuple[Floats | None, Floats]] = field(default_factory=list, repr=False)
    """The last weights and the roots that they gave."""

    @classmethod
    def of(cls, keys: Keys, pictures: Sequence[Binary], *, words: int, bits: int) -> Postings:
        """Build the lists of at most `MOST` pictures under keys [n]. words: K; bits: of each code."""
        sizes = np.array([len(picture.words) for picture in pictures], np.int32)
        flat = np.concatenate([np.empty(0, np.int64), *(picture.words for picture in pictures)])
        codes = np.concatenate([np.empty((0, -(-bits // 8)), np.uint8), *(picture.codes for picture in pictures)])
        # numpy sorts 16-bit numbers by radix, ten times as fast.
        order = np.argsort(flat.astype(np.min_scalar_type(words - 1)), kind="stable")
        return cls(
            keys=keys,
            sizes=sizes,
            offsets=_offsets(np.bincount(flat, minlength=words)),
            slots=np.repeat(np.arange(len(keys), dtype=np.uint16), sizes)[order],
            codes=np.take(lanes(codes).T, order, axis=0),
        )

    @property
    def lists(self) -> Lists:
        """The arrays that loops go over."""
        return self.offsets, self.slots, self.codes

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes, and of the roots."""
        arrays = (self.keys, self.sizes, self.offsets, self.slots, self.codes)
        return sum(array.nbytes for array in arrays) + 8 * len(self.keys)

    def save(self, folder: Path, name: str) -> None:
        """Write the arrays into files of a folder whose names begin with `name`. OSError."""
        for array in _ARRAYS:
            np.save(folder / f"{name}-{array}.npy", getattr(self, array))

    @classmethod
    def mapped(cls, folder: Path, name: str) -> Postings:
        """Map what `save` wrote; pages are read when they are first needed. ValueError if that was not it; OSError.

        Mapped as private copies, which nobody writes: compiled code tells arrays that cannot be written apart.
        """
        files = ((array, folder / f"{name}-{array}.npy") for array in _ARRAYS)
        arrays: dict[str, Any] = {array: np.asarray(np.load(file, mmap_mode="c")) for array, file in files}
        found = cls(**arrays)
        ends = (len(found.sizes), int(found.offsets[-1]), len(found.codes))
        if ends != (len(found.keys), len(found.slots), len(found.slots)):
            raise ValueError(f"{folder} has {ends} for {len(found.keys)} pictures with {len(found.slots)} postings")
        return found

    def moved(self, folder: Path, name: str) -> Postings:
        """Return these postings, in the files that `save` wrote, with what is known of them."""
        return replace(Postings.mapped(folder, name), _known=self._known)

    def counts(self, alive: Mask) -> Words:
        """Return the number of living pictures [n] that contain each word: [K]."""
        if alive.all():
            return np.diff(self.offsets).astype(np.int64)
        counts = np.empty(len(self.offsets) - 1, np.int64)
        count()(self.lists, alive, counts)
        return counts

    def roots(self, weights: Floats | None) -> Floats:
        """Return the root of the sum of the weights [K] of each picture's words, infinite without any: [n].

        weights: None for equal ones. Those of the last weights are kept.
        """
        for known, kept in self._known:
            if known is weights:
                return kept
        norms = self.sizes.astype(np.float64) if weights is None else self._sums(np.arange(len(weights)), weights)
        roots: Floats = np.sqrt(np.where(norms > 0, norms, np.inf))
        self._known[:] = [(weights, roots)]
        return roots

    def shared(self, words: Words) -> Words:
        """Return how many of the distinct words [W] each picture contains: [n]."""
        return self._sums(words, np.ones(len(words))).astype(np.int64)

    def totals(self, words: Words, codes: Codes, matches: Floats, weights: Floats) -> Floats:
        """Return the sum of each picture's matches with distinct words [W] with codes [W, L]: [n].

        It is -0.0 for a picture that shares none, and for no other: whatever is added, -0.0 becomes another number.

        matches: [bits + 1], the value of a match at each Hamming distance; weights: [W], of the words. Summed in the
        order of the given words, so that a picture's sum does not depend on the other pictures.
        """
        totals = np.full(len(self.keys), -0.0)
        scan(codes.shape[1])(self.lists, (words, codes, weights), matches, totals)
        return totals

    def _sums(self, words: Words, weights: Floats) -> Floats:
        """Return the sum of the weights [W] of those of the words [W] that each picture has: [n]."""
        totals = np.zeros(len(self.keys))
        scan(0)(self.lists, (words, _NO_CODES, weights), _ALWAYS, totals)
        return totals


def merged(parts: Sequence[Postings], alive: Sequence[Mask]) -> Postings:
    """Merge parts with at most `MOST` living pictures [n] into one, keeping their order and dropping the others.

    Needs no sorting: a part's postings of a word are appended to those of the previous parts.
    """
    offsets = _offsets(np.sum([part.counts(mask) for part, mask in zip(parts, alive, strict=True)], axis=0))
    slots = np.empty(offsets[-1], np.uint16)
    codes = np.empty((int(offsets[-1]), parts[0].codes.shape[1]), np.uint64)
    ends, pictures = offsets[:-1].copy(), 0
    for part, mask in zip(parts, alive, strict=True):
        renamed = np.where(mask, pictures + np.cumsum(mask) - 1, -1).astype(np.int32)
        append()(part.lists, renamed, ends, (slots, codes))
        pictures += int(np.count_nonzero(mask))
    return Postings(
        keys=np.concatenate([part.keys[mask] for part, mask in zip(parts, alive, strict=True)]),
        sizes=np.concatenate([part.sizes[mask] for part, mask in zip(parts, alive, strict=True)]),
        offsets=offsets,
        slots=slots,
        codes=codes,
    )


def _offsets(counts: Words) -> Offsets:
    """Return the start of each list of these lengths, and the end of the last: [n + 1]."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.uint32)
