"""Find training classes whose object appears in an evaluation's queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.export.curation.matcher import Matcher
from landseer.export.curation.verification import Match, Points
from landseer.export.datasets.photograph import Box, Photograph

BLOCK = 65_536
"""Training pictures compared at once."""
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shortlist:
    """The most similar training pictures of each query, best first."""

    rows: NDArray[np.int64]
    """[Q, K]: into the training pictures."""
    similarities: NDArray[np.float32]
    """[Q, K]: cosines."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlapEvidence:
    """A query and a training picture that show the same object."""

    query: Photograph
    training: Photograph
    similarity: float
    """The cosine of their descriptors."""
    match: Match
    """From the query to the training picture, limited to points inside the query's boxes if it has any."""
    query_size: Size
    """Width and height of the picture that the match's points refer to."""
    training_size: Size


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """All evidence of overlap."""

    evidence: tuple[OverlapEvidence, ...]

    def by_class(self) -> dict[str, list[OverlapEvidence]]:
        """Return the evidence against each class; pairs and classes with most inliers first."""
        found: dict[str, list[OverlapEvidence]] = {}
        for one in sorted(self.evidence, key=lambda one: -one.match.inliers):
            found.setdefault(one.training.label, []).append(one)
        return found


def shortlist(queries: NDArray[np.float32], training: NDArray[np.float32], top: int) -> Shortlist:
    """Return the `top` training pictures for each query, or all if there are fewer.

    queries: [Q, D], training: [N, D], unit norm. Exact; computed in blocks of training pictures.
    """
    rows = np.zeros((len(queries), 0), np.int64)
    similarities = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(training), BLOCK):
        scores = queries @ training[start : start + BLOCK].T
        places = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
        rows, similarities = np.hstack([rows, places]), np.hstack([similarities, scores])
        best = np.argpartition(-similarities, min(top, similarities.shape[1]) - 1, axis=1)[:, :top]
        rows, similarities = np.take_along_axis(rows, best, axis=1), np.take_along_axis(similarities, best, axis=1)
    order = np.lexsort((rows, -similarities), axis=1)
    return Shortlist(
        rows=np.take_along_axis(rows, order, axis=1), similarities=np.take_along_axis(similarities, order, axis=1)
    )


def find_overlap(
    queries: Sequence[Photograph],
    training: Sequence[Photograph],
    ranked: Shortlist,
    matcher: Matcher,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Overlap:
    """Verify every query against its short list.

    The check of "On Train-Test Class Overlap and Detection for Image Retrieval" (CiDeR, Song et al. 2024), which turned
    Google Landmarks v2 clean into its revisited form: training pictures are ranked for each evaluation query, the top
    ones are verified by SIFT and RANSAC, and classes with a verified picture are removed as a whole. The paper had
    people confirm them: see `sheet`. It prints neither the length of the short list nor the number of inliers. Counting
    only points inside the query's boxes is ours: otherwise a bus in front of the landmark is evidence.

    Pictures must be prepared (`Matcher.prepare`). `progress` is called after each pair.
    """
    places = [(query, int(row), column) for query, some in enumerate(ranked.rows) for column, row in enumerate(some)]
    matches = matcher.match((queries[query].path, training[row].path) for query, row, _ in places)
    evidence = []
    for (query, row, column), match in zip(places, matches, strict=True):
        inside = within(match, queries[query].boxes, matcher.size(queries[query].path)) if match else None
        if inside is not None and inside.inliers >= matcher.settings.inliers:
            similarity = float(ranked.similarities[query, column])
            evidence.append(_evidence(queries[query], training[row], similarity, inside, matcher))
        progress()
    return Overlap(evidence=tuple(evidence))


def within(match: Match, boxes: Sequence[Box], size: Size) -> Match:
    """Keep only the points of a match inside a box of its first picture; without boxes, keep all."""
    if not boxes:
        return match
    inside = np.any([_inside(match.first, box, size) for box in boxes], axis=0)
    return dataclasses.replace(match, first=match.first[inside], second=match.second[inside])


def shortlisted(training: Sequence[Photograph], ranked: Shortlist) -> Iterator[Photograph]:
    """Yield the training pictures of all short lists, each once, in dataset order."""
    return (training[row] for row in np.unique(ranked.rows))


def _inside(points: Points, box: Box, size: Size) -> NDArray[np.bool_]:
    share = points / np.array(size)
    inside: NDArray[np.bool_] = np.all((share >= (box.x0, box.y0)) & (share <= (box.x1, box.y1)), axis=1)
    return inside


def _evidence(
    query: Photograph, training: Photograph, similarity: float, match: Match, matcher: Matcher
) -> OverlapEvidence:
    return OverlapEvidence(
        query=query,
        training=training,
        similarity=similarity,
        match=match,
        query_size=matcher.size(query.path),
        training_size=matcher.size(training.path),
    )
