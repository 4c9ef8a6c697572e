"""Neighbourhoods to learn query expansion from: real ones, and simulated ones with their statistics.

A few dozen classes are too few to learn how neighbourhoods differ. So most episodes are simulated: they recombine class
centres and deviations from them, both taken from real descriptors. Each episode draws, over wide ranges that were set
without looking at any test set: the distance between classes, the spread and number of their members, the share of near
copies, styles shared across classes (a camera, a background), and an offset common to all, as descriptors have on data
unlike what their whitening was learned from.

A thing has 1 to 64 right answers, in half of the episodes most often fewer than eight: an expansion must know which
case it is in. `Mixture` draws from several kinds of data, and puts pictures of one kind among those of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Draw = np.random.Generator
OTHER = -1
"""The class of pictures that are no query's right answer."""


class Kind(NamedTuple):
    """Descriptors of one kind of data: photographs by class, or views of photographs or of drawn targets."""

    vectors: Vectors
    """[N, D], unit."""
    labels: Labels
    """[N], the thing that each shows."""

    def rows(self, rows: NDArray[np.int64]) -> Kind:
        """Return some of them."""
        return Kind(self.vectors[rows], self.labels[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """A small database and queries that are not in it."""

    vectors: Vectors
    """[N, D], unit."""
    labels: Labels
    """[N], the class of each vector; `OTHER` for pictures of another kind."""
    queries: Vectors
    """[Q, D], unit."""
    wanted: Labels
    """[Q], the class of each query; the database has it."""
    neighbours: int = 0
    """Of LAttDBA, which augments the database by the network being trained; 0 for a raw database."""
    temperature: float = 1.0
    """Of LAttDBA."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRanges:
    """Ranges (low, high) of what an episode draws, uniformly; those named log in the logarithm."""

    size_log: tuple[float, float] = (200.0, 1000.0)
    """Of the database and its queries."""
    queries: int = 32
    simulated: float = 0.6
    """Share of simulated episodes."""
    members_log: tuple[float, float] = (1.5, 60.0)
    """Median size of a class."""
    apart: tuple[float, float] = (0.2, 1.0)
    """Factor on the distances of class centres."""
    within_log: tuple[float, float] = (0.5, 2.0)
    """Factor on the deviations within a class."""
    copies: tuple[float, float] = (1.0, 6.0)
    """Number of views of one member."""
    copies_log: tuple[float, float] = (0.2, 1.0)
    """Factor on the deviations of views."""
    styles_log: tuple[float, float] = (4.0, 200.0)
    """Number of styles."""
    style: tuple[float, float] = (0.0, 1.2)
    """Factor on the deviations that classes share."""
    offset: tuple[float, float] = (0.0, 1.2)
    """Of the common offset, in lengths of a descriptor."""
    noise: tuple[float, float] = (0.0, 0.3)
    """Length of white noise."""
    augmented: float = 0.5
    """Share of the episodes whose database LAttDBA augments."""
    augmented_by: tuple[int, int] = (16, 48)
    """Its number of neighbours."""
    temperature_log: tuple[float, float] = (0.5, 3.0)
    crowded: float = 0.4
    """Share of the episodes of a mixture with pictures of another kind, up to as many as its own."""


class Neighbourhoods:
    """Draws episodes from descriptors of labelled photographs and, where there are some, views of each."""

    def __init__(self, vectors: Vectors, labels: Labels, ranges: EpisodeRanges | None = None) -> None:
        """vectors: [N, V, D], of unit norm, V views of each photograph (1 for none). labels: [N]."""
        if vectors.ndim != 3 or len(vectors) != len(labels):
            raise ValueError(f"got vectors {vectors.shape} and {len(labels)} labels; expected [N, V, D] and N")
        _, self.labels = np.unique(labels, return_inverse=True)
        self.ranges, self.photographs = ranges or EpisodeRanges(), vectors[:, 0]
        if not len(self.labels) or self.labels.max() < 1:
            raise ValueError(f"got {len(set(labels.tolist()))} classes; expected 2 or more")
        self.centres = vectors.mean(axis=1)
        self.mean = self.photographs.mean(axis=0)
        means = np.stack(
            [self.photographs[self.labels == label].mean(axis=0) for label in range(self.labels.max() + 1)]
        )
        self.deviations = self.photographs - means[self.labels]
        views = (vectors - self.centres[:, None]).reshape(-1, vectors.shape[-1])
        self.view_deviations = views if vectors.shape[1] > 1 else 0.3 * self.deviations

    def within(self, ranges: EpisodeRanges) -> Neighbourhoods:
        """Return the same descriptors with other ranges."""
        other = copy(self)
        other.ranges = ranges
        return other

    @property
    def digest(self) -> str:
        """Identifies the descriptors."""
        return hashlib.sha256(self.centres.tobytes()).hexdigest()[:16]

    def draw(self, draw: Draw) -> Episode:
        """Draw an episode, determined by the state of `draw`."""
        simulated, size = draw.random() < self.ranges.simulated, _log_uniform(self.ranges.size_log, draw)
        vectors, labels = self._simulated(size, draw) if simulated else self._real(size, draw)
        if draw.random() < 0.5:
            vectors = vectors + draw.uniform(*self.ranges.offset) * self._some(self.centres, 1, draw)
        noise = draw.standard_normal(vectors.shape, np.float32) / np.sqrt(vectors.shape[1])
        vectors = unit(vectors + draw.uniform(*self.ranges.noise) * noise)
        rows = self._asked(labels, draw)
        kept = np.setdiff1d(np.arange(len(labels)), rows)
        plain = Episode(vectors=vectors[kept], labels=labels[kept], queries=vectors[rows], wanted=labels[rows])
        if draw.random() >= self.ranges.augmented:
            return plain
        low, high = self.ranges.augmented_by
        temperature = _log_uniform(self.ranges.temperature_log, draw)
        return replace(plain, neighbours=int(draw.integers(low, high + 1)), temperature=temperature)

    def _asked(self, labels: Labels, draw: Draw) -> NDArray[np.int64]:
        """Return the rows of the queries: at most half of each class, so that right answers are left."""
        rows: list[int] = []
        left = dict(zip(*np.unique(labels, return_counts=True), strict=True))
        for row in draw.permutation(len(labels)):
            if left[labels[row]] > 1 and len(rows) < self.ranges.queries:
                left[labels[row]] -= 2
                rows.append(int(row))
        return np.array(rows, np.int64)

    def _real(self, size: float, draw: Draw) -> tuple[Vectors, Labels]:
        """Return some classes, with some of their photographs."""
        median, rows = _log_uniform(self.ranges.members_log, draw), []
        for label in draw.permutation(self.labels.max() + 1):
            members = np.flatnonzero(self.labels == label)
            rows.append(draw.permutation(members)[: self._count(median, draw)])
            if sum(map(len, rows)) >= size:
                break
        chosen = np.concatenate(rows)
        return self.photographs[chosen], self.labels[chosen]

    def _simulated(self, size: float, draw: Draw) -> tuple[Vectors, Labels]:
        ranges, vectors = self.ranges, list[Vectors]()
        labels: list[int] = []
        median, apart = _log_uniform(ranges.members_log, draw), draw.uniform(*ranges.apart)
        within, copies = _log_uniform(ranges.within_log, draw), draw.uniform(*ranges.copies)
        spread, style = _log_uniform(ranges.copies_log, draw), draw.uniform(*ranges.style)
        styles = style * self._some(self.deviations, round(_log_uniform(ranges.styles_log, draw)), draw)
        while len(labels) < size:
            count = self._count(median, draw)
            seen = within * draw.uniform(0.7, 1.4) * self._some(self.deviations, max(1, round(count / copies)), draw)
            near = spread * self._some(self.view_deviations, count, draw)
            centre = self.mean + apart * (self._some(self.centres, 1, draw) - self.mean)
            vectors.append(centre + self._some(seen, count, draw) + near + self._some(styles, count, draw))
            labels += [len(vectors)] * count
        return unit(np.concatenate(vectors)), np.array(labels)

    def _count(self, median: float, draw: Draw) -> int:
        return int(np.clip(draw.lognormal(np.log(median), 0.5), 1, 150))

    @staticmethod
    def _some(rows: Vectors, count: int, draw: Draw) -> Vectors:
        return np.asarray(rows[draw.integers(0, len(rows), count)], np.float32)


class Mixture:
    """Draws episodes from several kinds of data in several worlds, each kind of each world as often.

    A world is the same kinds described in another way. Pictures of two worlds never meet.
    """

    def __init__(
        self, worlds: Sequence[Sequence[Neighbourhoods]], asked: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """worlds: the kinds of each; all have descriptors of one size. asked: numbers of worlds and of kinds in them.

        Only things of these kinds are looked for; the others are their distractors. None: all kinds.
        """
        self.worlds, self.ranges = worlds, worlds[0][0].ranges
        self.asked = asked or [(world, kind) for world, kinds in enumerate(worlds) for kind in range(len(kinds))]

    def within(self, ranges: EpisodeRanges) -> Mixture:
        """Return the same descriptors with other ranges."""
        return Mixture([[one.within(ranges) for one in kinds] for kinds in self.worlds], self.asked)

    @property
    def digest(self) -> str:
        """Identifies the descriptors."""
        return " ".join(one.digest for kinds in self.worlds for one in kinds)

    def draw(self, draw: Draw) -> Episode:
        """Draw an episode, determined by the state of `draw`."""
        world, kind = self.asked[int(draw.integers(len(self.asked)))]
        kinds = self.worlds[world]
        others = [one for number, one in enumerate(kinds) if number != kind]
        episode = kinds[kind].draw(draw)
        if not others or draw.random() >= self.ranges.crowded:
            return episode
        rows = others[int(draw.integers(len(others)))].photographs
        count = min(len(rows), int(draw.integers(1, len(episode.vectors) + 1)))
        vectors = np.concatenate([episode.vectors, rows[draw.permutation(len(rows))[:count]]])
        labels = np.concatenate([episode.labels, np.full(count, OTHER)])
        return replace(episode, vectors=vectors, labels=labels)


def unit(vectors: Vectors) -> Vectors:
    """Return the rows [N, D] with a norm of 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _log_uniform(limits: tuple[float, float], draw: Draw) -> float:
    return float(np.exp(draw.uniform(*np.log(limits))))
