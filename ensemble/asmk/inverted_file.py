"""The inverted file: first search by visual words and packed residuals, with exactly the scores of the kernel.

Pictures are held in immutable segments. An addition becomes a small segment, merged with its neighbours while they are
not much larger; a removal is marked, and carried out at the next merge. So adding n pictures one by one costs n log n,
a search sees all of a change or nothing, and searches never wait for changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import lanes
from landseer.ensemble.asmk.kernel import NOTHING, Kernel, idf, norm
from landseer.ensemble.asmk.postings import Floats, Keys, Mask, Postings, merged

RATIO = 4
"""A segment is merged into the previous one unless that is more than this many times larger."""
DEAD = 0.25
"""Share of removed pictures above which a segment is rewritten."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Segment:
    postings: Postings
    alive: Mask
    """[n], False for removed pictures."""

    @cached_property
    def living(self) -> int:
        """Number of pictures without removed ones."""
        return int(np.count_nonzero(self.alive))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Number of pictures that contain each word, without removed ones: [K]."""
        if self.living == len(self.alive):
            return self.postings.counts
        words = self.postings.words()[self.alive[self.postings.slots]]
        return np.bincount(words, minlength=len(self.postings.offsets) - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _State:
    """A snapshot of all pictures."""

    segments: tuple[_Segment, ...]
    kernel: Kernel

    @cached_property
    def size(self) -> int:
        return sum(segment.living for segment in self.segments)

    @cached_property
    def weights(self) -> Floats | None:
        """The weight of each word, [K]; None for equal weights."""
        if not self.kernel.idf or not self.segments:
            return None
        return idf(np.sum([segment.counts for segment in self.segments], axis=0), self.size)

    @cached_property
    def norms(self) -> tuple[Floats, ...]:
        """The sum of the weights of each picture's words, by segment: [n] each."""
        weights = self.weights
        parts = [segment.postings for segment in self.segments]
        return tuple(part.sizes.astype(np.float64) if weights is None else part.norms(weights) for part in parts)


class InvertedFile:
    """Finds the most similar pictures by words and residual bits. Threads may share it; changes are serialised."""

    def __init__(self, *, words: int, bits: int, kernel: Kernel | None = None) -> None:
        """Create an empty file. words: K of the codebook; bits: D of its features."""
        if words < 1 or bits < 1:
            raise ValueError(f"got {words} words and {bits} bits; expected at least 1 of each")
        self.words, self.bits = words, bits
        self._matches = (kernel or Kernel()).by_distance(bits)
        self._state = _State(segments=(), kernel=kernel or Kernel())
        self._changing = threading.Lock()

    @property
    def kernel(self) -> Kernel:
        """The kernel of its scores."""
        return self._state.kernel

    @property
    def size(self) -> int:
        """Number of pictures."""
        return self._state.size

    @property
    def nbytes(self) -> int:
        """Memory of its postings, in bytes."""
        return sum(segment.postings.nbytes + segment.alive.nbytes for segment in self._state.segments)

    def add(self, keys: Keys, pictures: Sequence[Binary]) -> None:
        """Add pictures [n] under keys [n]. Existing keys are replaced; of duplicate keys the last one counts.

        A picture without words is kept, and scores -1. ValueError for words or bits of another codebook.
        """
        keys = np.ascontiguousarray(keys, np.int64)
        if keys.shape != (len(pictures),):
            raise ValueError(f"got {len(pictures)} pictures and keys of shape {keys.shape}; expected one key for each")
        for picture in pictures:
            self._check(picture)
        last = {key: place for place, key in enumerate(keys.tolist())}
        chosen = sorted(last.values())
        keys, pictures = keys[chosen], [pictures[place] for place in chosen]
        new = Postings.of(keys, pictures, words=self.words, bits=self.bits)
        with self._changing:
            segments = [*_without(self._state.segments, keys), _whole(new)] if len(keys) else self._state.segments
            self._state = replace(self._state, segments=_tidied(segments))

    def remove(self, keys: Keys) -> None:
        """Remove the pictures under keys [n]; missing keys are ignored."""
        with self._changing:
            segments = _without(self._state.segments, np.asarray(keys, np.int64))
            self._state = replace(self._state, segments=_tidied(segments))

    def search(self, query: Binary, k: int) -> tuple[Keys, Floats]:
        """Return keys and scores [k'] of the k most similar pictures, best first; ties go to the lower key.

        Only pictures that share a word with the query are returned, so k' may be less than k: the others score 0 or -1.
        """
        state = self._state
        found = [(segment.postings.keys[met], scores[met]) for segment, scores, met in self._scored(state, query)]
        keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in found)])
        return _best(keys, np.concatenate([np.empty(0), *(scores for _, scores in found)]), k)

    def scores(self, query: Binary) -> tuple[Keys, Floats]:
        """Return the keys of all pictures, ascending, and their scores: [size] each; -1 if either side has no words."""
        state = self._state
        found = [
            (
                segment.postings.keys[segment.alive],
                np.where((segment.postings.sizes > 0) & (len(query.words) > 0), scores, NOTHING)[segment.alive],
            )
            for segment, scores, _ in self._scored(state, query)
        ]
        keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in found)])
        order = np.argsort(keys)
        return keys[order], np.concatenate([np.empty(0), *(scores for _, scores in found)])[order]

    def sharing(self, query: Binary, *, least: int = 1) -> Keys:
        """Return the keys of pictures that share at least `least` words with the query, ascending: the word filter.

        Hu and Bors 2020 compare a query only with pictures that share a word with it.
        """
        self._check(query)
        found = [np.empty(0, np.int64)]
        for segment in self._state.segments:
            enough = segment.postings.shared(query.words) >= max(least, 1)
            found.append(segment.postings.keys[enough & segment.alive])
        return np.sort(np.concatenate(found))

    def _scored(self, state: _State, query: Binary) -> list[tuple[_Segment, Floats, Mask]]:
        """Return each segment with the scores of its pictures, and which living ones share a word: [n] each."""
        self._check(query)
        codes, weights = lanes(query.codes), state.weights
        scored = []
        for place, segment in enumerate(state.segments):
            scores, met = segment.postings.score(query.words, codes, self._matches, weights)
            if state.kernel.normalised:
                scale = np.sqrt(norm(query.words, weights)) * np.sqrt(state.norms[place])
                scores = np.divide(scores, scale, out=np.zeros_like(scores), where=scale > 0)
            scored.append((segment, scores, met & segment.alive))
        return scored

    def _check(self, picture: Binary) -> None:
        words = picture.words
        if picture.bits != self.bits or picture.codes.shape != (len(words), -(-self.bits // 8)):
            got = f"{picture.bits} bits and codes of shape {picture.codes.shape}"
            raise ValueError(f"got {len(words)} words, {got}; expected a code of {self.bits} bits for each word")
        if len(words) and (words[0] < 0 or words[-1] >= self.words or (np.diff(words) < 1).any()):
            raise ValueError(f"got words that are not ascending within 0 to {self.words - 1}; use the same codebook")


def _whole(postings: Postings) -> _Segment:
    return _Segment(postings=postings, alive=np.ones(len(postings.keys), np.bool_))


def _without(segments: Sequence[_Segment], keys: Keys) -> list[_Segment]:
    """Mark the pictures under keys as removed."""
    kept = []
    for segment in segments:
        alive = segment.alive & ~np.isin(segment.postings.keys, keys)
        changed = np.count_nonzero(alive) != segment.living
        kept.append(replace(segment, alive=alive) if changed else segment)
    return kept


def _tidied(segments: Sequence[_Segment]) -> tuple[_Segment, ...]:
    """Merge the last segments while their sizes are similar, and rewrite those with many removed pictures."""
    tidy = list(segments)
    while len(tidy) > 1 and tidy[-2].living <= RATIO * tidy[-1].living:
        last = tidy[-2:]
        tidy[-2:] = [_whole(merged([one.postings for one in last], [one.alive for one in last]))]
    thin = [segment.living < (1.0 - DEAD) * len(segment.alive) for segment in tidy]
    tidy = [_whole(merged([one.postings], [one.alive])) if few else one for one, few in zip(tidy, thin, strict=True)]
    return tuple(segment for segment in tidy if segment.living)


def _best(keys: Keys, scores: Floats, k: int) -> tuple[Keys, Floats]:
    """Return the k highest scores and their keys, best first; ties go to the lower key."""
    k = min(max(k, 0), len(keys))
    if 0 < k < len(keys):
        # Include everything that ties with the k-th, so that keys break the tie, not the partition.
        some = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        keys, scores = keys[some], scores[some]
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]
