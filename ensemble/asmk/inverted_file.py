"""The inverted file: first search by visual words and packed residuals, with exactly the scores of the kernel.

Pictures are held in immutable segments of at most `MOST` pictures. An addition becomes a small segment, merged with its
neighbours while they are not much larger; a removal is marked, and carried out at the next merge. So adding n pictures
one by one costs n log n, merging needs memory for two segments at most, a search sees all of a change or nothing, and
searches never wait for changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import lanes
from landseer.ensemble.asmk.kernel import NOTHING, Kernel, idf, norm
from landseer.ensemble.asmk.postings import MOST, Keys, Mask, Postings, Words, merged
from landseer.ensemble.asmk.scan import Codes, Floats, lead, prepare

T = TypeVar("T")

RATIO = 4
"""A segment is merged into the previous one unless that is more than this many times larger."""
DEAD = 0.25
"""Share of removed pictures above which a segment is rewritten."""
LISTED = 4096
"""Pictures listed at a time: 150 MB for 600 words each."""
STALE = 0.001
"""Share of pictures that may change before words are weighted anew, which reads all postings."""


class SavingStopped(Exception):
    """Saving was told to stop."""


class Allowing(Protocol):
    """Which pictures a search may return."""

    def has(self, keys: Keys) -> Mask:
        """Return whether each of keys [n] is allowed: [n]."""


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
    def counts(self) -> Words:
        """Number of pictures that contain each word, without removed ones: [K]."""
        return self.postings.counts(self.alive)


@dataclass(frozen=True, kw_only=True, eq=False)
class _State:
    """A snapshot of all pictures."""

    segments: tuple[_Segment, ...]
    kernel: Kernel
    before: Floats | None = None
    """The last weights of words, [K]."""
    changes: int = 0
    """Pictures added and removed since then."""

    @cached_property
    def size(self) -> int:
        return sum(segment.living for segment in self.segments)

    @cached_property
    def weights(self) -> Floats | None:
        """The weight of each word, [K]; None for equal weights."""
        if not self.kernel.idf or not self.segments:
            return None
        if self.before is not None and self.changes <= STALE * self.size:
            return self.before
        return idf(np.sum([segment.counts for segment in self.segments], axis=0), self.size)

    def changed(self, segments: tuple[_Segment, ...], pictures: int) -> _State:
        """Return the snapshot after a change of so many pictures."""
        known = self.__dict__.get("weights")
        if known is None or known is self.before:
            return replace(self, segments=segments, changes=self.changes + pictures)
        return replace(self, segments=segments, before=known, changes=pictures)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
    """A query, as postings are compared with it."""

    words: Words
    """[W]."""
    codes: Codes
    """[W, L]."""
    weights: Floats
    """[W], of the words."""
    root: float
    """Of the sum of the weights; infinite without any."""


class InvertedFile:
    """Finds the most similar pictures by words and residual bits. Threads may share it; changes are serialised."""

    def __init__(
        self,
        *,
        words: int,
        bits: int,
        kernel: Kernel | None = None,
        pool: ThreadPoolExecutor | None = None,
        threads: int = 1,
    ) -> None:
        """Create an empty file. words: K of the codebook; bits: D of its features.

        pool: shares each search among more than `MOST` pictures, by so many of its threads; None to search on the
        caller's alone.
        """
        if words < 1 or bits < 1:
            raise ValueError(f"got {words} words and {bits} bits; expected at least 1 of each")
        self.words, self.bits = words, bits
        self._matches = (kernel or Kernel()).by_distance(bits)
        self._state = _State(segments=(), kernel=kernel or Kernel())
        self._pool, self._threads = pool, threads
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

    def save(self, folder: Path, stop: threading.Event | None = None) -> list[Postings]:
        """Write all postings into an empty folder, and return them in the order of their names. OSError.

        Pictures that were removed are written, too, as long as their postings are there. SavingStopped after
        at most one segment once `stop` is set.
        """
        saved = [segment.postings for segment in self._state.segments]
        for place, postings in enumerate(saved):
            if stop is not None and stop.is_set():
                raise SavingStopped(f"stopped after {place} of {len(saved)} segments")
            postings.save(folder, str(place))
        return saved

    def move(self, saved: Sequence[Postings], folder: Path) -> None:
        """Take from files what `save` returned, and is still in use. ValueError; OSError."""
        moved = {id(postings): postings.moved(folder, str(place)) for place, postings in enumerate(saved)}
        with self._changing:
            segments = tuple(
                replace(segment, postings=moved.get(id(segment.postings), segment.postings))
                for segment in self._state.segments
            )
            self._state = self._state.changed(segments, 0)

    def load(self, folder: Path, living: Keys) -> None:
        """Map what `save` wrote, without all pictures but those of the keys `living`. ValueError; OSError."""
        names = sorted(int(path.name.partition("-")[0]) for path in folder.glob("*-keys.npy"))
        parts = [Postings.mapped(folder, str(name)) for name in names]
        segments = (_Segment(postings=part, alive=np.isin(part.keys, living)) for part in parts)
        with self._changing:
            self._state = self._state.changed(tuple(one for one in segments if one.living), 0)

    def prepare(self) -> None:
        """Compile what searches and changes run, which otherwise the first of them does. Takes some seconds."""
        prepare(-(-self.bits // 64))

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
        with self._changing:
            segments = tuple(_without(self._state.segments, keys))
            for first in range(0, len(keys), LISTED):
                some = slice(first, first + LISTED)
                new = Postings.of(keys[some], pictures[some], words=self.words, bits=self.bits)
                segments = _tidied([*segments, _whole(new)])
            self._state = self._state.changed(segments, len(keys))

    def remove(self, keys: Keys) -> None:
        """Remove the pictures under keys [n]; missing keys are ignored."""
        with self._changing:
            segments = _without(self._state.segments, np.asarray(keys, np.int64))
            self._state = self._state.changed(_tidied(segments), len(keys))

    def search(self, query: Binary, k: int, selection: Allowing | None = None) -> tuple[Keys, Floats]:
        """Return keys and scores [k'] of the k most similar pictures, best first; ties go to the lower key.

        Only pictures that share a word with the query are returned, so k' may be less than k: the others score 0 or -1.
        selection: which pictures may be returned; None for all. Words weigh what they weigh among all pictures.
        """
        state, asked = self._asked(query)

        def hits(segment: _Segment) -> tuple[Keys, Floats]:
            totals, keys = self._totals(asked, segment), segment.postings.keys
            allowed = segment.alive if selection is None else segment.alive & selection.has(keys)
            found = np.empty(len(keys), np.int64)
            best = np.empty(min(max(k, 0), len(keys)))
            places = found[: lead()(totals, allowed, _roots(state, asked, segment), best, found)]
            return keys[places], totals[places]

        return _best(*_joined(self._each(state, hits)), k)

    def scores(self, query: Binary) -> tuple[Keys, Floats]:
        """Return the keys of all pictures, ascending, and their scores: [size] each; -1 if either side has no words."""
        state, asked = self._asked(query)

        def scored(segment: _Segment) -> tuple[Keys, Floats]:
            root, roots = _roots(state, asked, segment)
            scores = self._totals(asked, segment) / (root * roots)
            scores = np.where((segment.postings.sizes > 0) & (len(query.words) > 0), scores, NOTHING)
            return segment.postings.keys[segment.alive], scores[segment.alive]

        keys, scores = _joined(self._each(state, scored))
        order = np.argsort(keys)
        return keys[order], scores[order]

    def sharing(self, query: Binary, *, least: int = 1) -> Keys:
        """Return the keys of pictures that share at least `least` words with the query, ascending: the word filter.

        Hu and Bors 2020 compare a query only with pictures that share a word with it.
        """
        state, asked = self._asked(query)

        def sharing(segment: _Segment) -> Keys:
            enough = segment.postings.shared(asked.words) >= max(least, 1)
            return segment.postings.keys[enough & segment.alive]

        return np.sort(np.concatenate([np.empty(0, np.int64), *self._each(state, sharing)]))

    def _asked(self, query: Binary) -> tuple[_State, _Asked]:
        """Return the pictures as they are now, and the query. ValueError for one of another codebook."""
        self._check(query)
        state = self._state
        # Copied, as arrays that come from the store cannot be written, which compiled code tells apart.
        words = np.array(query.words, np.int64)
        weights = np.ones(len(words)) if state.weights is None else state.weights[words]
        codes = np.ascontiguousarray(lanes(query.codes).T)
        root = float(np.sqrt(norm(words, state.weights) or np.inf))
        return state, _Asked(words=words, codes=codes, weights=weights, root=root)

    def _totals(self, asked: _Asked, segment: _Segment) -> Floats:
        """Return what the matches of a segment's pictures are worth, as `Postings.totals`: [n]."""
        return segment.postings.totals(asked.words, asked.codes, self._matches, asked.weights)

    def _each(self, state: _State, work: Callable[[_Segment], T]) -> list[T]:
        """Return what `work` gives for each segment, in any order, on the pool's threads if there are several."""
        if self._pool is None or len(state.segments) < 2:
            return [work(segment) for segment in state.segments]
        # The threads take one after the other from the same iterator: to hand over each by itself costs more.
        left = iter(state.segments)
        lanes = self._pool.map(lambda _: [work(segment) for segment in left], range(self._threads))
        return list(chain.from_iterable(lanes))

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
    """Merge neighbours while their sizes are similar, and rewrite segments with many removed pictures."""
    tidy: list[_Segment] = []
    for segment in segments:
        tidy.append(segment)
        while len(tidy) > 1 and _alike(*tidy[-2:]):
            last = tidy[-2:]
            tidy[-2:] = [_whole(merged([one.postings for one in last], [one.alive for one in last]))]
    thin = [segment.living < (1.0 - DEAD) * len(segment.alive) for segment in tidy]
    tidy = [_whole(merged([one.postings], [one.alive])) if few else one for one, few in zip(tidy, thin, strict=True)]
    return tuple(segment for segment in tidy if segment.living)


def _alike(before: _Segment, after: _Segment) -> bool:
    """Return whether two segments are to be merged."""
    return before.living <= RATIO * after.living and before.living + after.living <= MOST


def _joined(found: Sequence[tuple[Keys, Floats]]) -> tuple[Keys, Floats]:
    """Join the keys and scores of segments."""
    keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in found)])
    return keys, np.concatenate([np.empty(0), *(scores for _, scores in found)])


def _roots(state: _State, asked: _Asked, segment: _Segment) -> tuple[float, Floats]:
    """Return the query's root, and those of a segment's pictures [n]: ones, unless scores are normalised."""
    postings = segment.postings
    if not state.kernel.normalised:
        return 1.0, np.ones(len(postings.keys))
    return asked.root, postings.roots(state.weights)


def _best(keys: Keys, scores: Floats, k: int) -> tuple[Keys, Floats]:
    """Return the k highest scores and their keys, best first; ties go to the lower key."""
    k = min(max(k, 0), len(keys))
    if 0 < k < len(keys):
        # Include everything that ties with the k-th, so that keys break the tie, not the partition.
        some = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        keys, scores = keys[some], scores[some]
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]
