"""Remove pictures of a class that do not show its object."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from landseer.export.curation.box_diffusion import diffuse
from landseer.export.curation.matcher import Matcher
from landseer.export.curation.verification import Edge
from landseer.export.datasets.photograph import Box, Photograph

LEAST = 3
"""Minimum size of a cleaned class. The paper gives no number: a pair may be chance or a copy, and a triplet needs two
pictures and something to choose from."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """The result of cleaning a class."""

    label: str
    kept: tuple[Photograph, ...]
    """Each with the one box that was found; in source order."""
    removed: tuple[Photograph, ...]
    unreadable: tuple[Photograph, ...]
    pairs: int
    """Number of matching pairs in the whole class."""


def clean(
    label: str,
    photographs: Sequence[Photograph],
    matcher: Matcher,
    *,
    least: int = LEAST,
    progress: Callable[[], None] = lambda: None,
) -> Cleaned:
    """Keep the largest group of matching pictures of a class, and find the object in each.

    Gordo et al., "Deep Image Retrieval" (2016), section 4: all pairs are matched and verified by an affine model. Pairs
    that match are the edges of a graph, scored by their inliers. Its largest connected component is kept, or nothing if
    that has fewer than `least` pictures. `progress` is called after each of the n (n - 1) / 2 pairs. Boxes:
    `box_diffusion.diffuse`.
    """
    readable = matcher.readable([photograph.path for photograph in photographs])
    known = [photograph for photograph in photographs if photograph.path in readable]
    edges = _edges(known, matcher, progress)
    chosen = largest(len(known), edges)
    chosen = chosen if len(chosen) >= max(least, 2) else []
    kept = _boxed(known, chosen, edges, matcher)
    return Cleaned(
        label=label,
        kept=tuple(kept),
        removed=tuple(known[place] for place in sorted(set(range(len(known))) - set(chosen))),
        unreadable=tuple(photograph for photograph in photographs if photograph.path not in readable),
        pairs=len(edges),
    )


def pairs_in(count: int) -> int:
    """Return the number of pairs among `count` pictures."""
    return count * (count - 1) // 2


def largest(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return the largest connected component of pictures 0..count-1, sorted; among equals the one with most inliers."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return []
    first, second, inliers = np.array([(e.first, e.second, e.match.inliers) for e in edges], int).reshape(-1, 3).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    sizes = np.bincount(component)
    strengths = np.bincount(component[first], weights=inliers, minlength=len(sizes))
    best = np.lexsort((-strengths, -sizes))[0]
    return [int(place) for place in np.flatnonzero(component == best)]


def _edges(known: Sequence[Photograph], matcher: Matcher, progress: Callable[[], None]) -> list[Edge]:
    places = list(itertools.combinations(range(len(known)), 2))
    edges = []
    matches = matcher.match((known[first].path, known[second].path) for first, second in places)
    for (first, second), match in zip(places, matches, strict=True):
        if match is not None:
            edges.append(Edge(first=first, second=second, match=match))
        progress()
    return edges


def _boxed(
    known: Sequence[Photograph], chosen: Sequence[int], edges: Sequence[Edge], matcher: Matcher
) -> list[Photograph]:
    rows = {place: row for row, place in enumerate(chosen)}
    inside = [
        Edge(first=rows[edge.first], second=rows[edge.second], match=edge.match) for edge in edges if edge.first in rows
    ]
    sizes = [matcher.size(known[place].path) for place in chosen]
    if not sizes:
        return []
    found = zip(chosen, diffuse(sizes, inside), sizes, strict=True)
    return [
        Photograph(path=known[place].path, label=known[place].label, boxes=(_fractions(box.tolist(), size),))
        for place, box, size in found
    ]


def _fractions(box: Sequence[float], size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = (min(max(side / size[axis % 2], 0.0), 1.0) for axis, side in enumerate(box))
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)
