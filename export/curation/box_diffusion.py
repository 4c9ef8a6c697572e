"""Find the box of the object in each picture of a class: boxes around matches, diffused along the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.export.curation.median import geometric_median
from landseer.export.curation.verification import Edge, Points

Boxes = NDArray[np.float64]
"""[N, 4]: left, top, right, bottom, in pixels of the reduced pictures."""
ALPHA = 0.1
"""Gordo et al. 2016, section 4."""
STILL = 0.25
"""In pixels: diffusion ends when no side of a box moves more than this in a round."""
ROUNDS = 100
"""Maximum rounds. The paper says "until convergence" without a number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Views:
    """The neighbours of one picture."""

    nodes: NDArray[np.intp]
    """[K]."""
    transforms: NDArray[np.float64]
    """[K, 2, 3]: from each neighbour to the picture."""


def diffuse(sizes: Sequence[tuple[int, int]], edges: Sequence[Edge], *, alpha: float = ALPHA) -> Boxes:
    """Return the box of each picture [N, 4], in pixels.

    Gordo et al., "Deep Image Retrieval" (2016), section 4. A picture starts with the geometric median of the boxes
    around its matched points, one for each of its matches. Then every neighbour's box B is projected by the pair's
    affine model A, and the picture's box becomes (1 - alpha) B + alpha A B, the updates of several neighbours merged by
    their geometric median, until the boxes stop moving. The paper prints (alpha - 1) B + alpha A B, a sign error that
    would turn boxes inside out.

    Our choices where the paper is open: all boxes move at once, so the order of pictures does not matter; `STILL` and
    `ROUNDS` end the diffusion; `project` projects boxes, which are then clipped to the picture.

    sizes: width and height of each picture in pixels. edges: all matches; ValueError if a picture has none.
    """
    views = _views(len(sizes), edges)
    frames = np.array([(width, height, width, height) for width, height in sizes], np.float64)
    boxes = _starts(len(sizes), edges)
    for _ in range(ROUNDS):
        moved = np.stack([_moved(place, boxes, views[place], frames[place], alpha) for place in range(len(boxes))])
        if np.abs(moved - boxes).max(initial=0) <= STILL:
            return moved
        boxes = moved
    return boxes


def project(boxes: Boxes, transforms: NDArray[np.float64]) -> Boxes:
    """Project boxes [K, 4] by affine models [K, 2, 3]: the bounds of each box's projected inscribed ellipse.

    The paper does not say how to project a box. We do not use its corners: under rotation their bounds are larger than
    the box, so boxes would grow along every loop of rotated pictures (measured: docs/research/data.md). The ellipse of
    a square does not grow under rotation, and under zoom and shift both projections are the same.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    linear, shift = transforms[:, :, :2], transforms[:, :, 2]
    middle = np.einsum("kij,kj->ki", linear, centre) + shift
    reach = np.sqrt(np.einsum("kij,kj->ki", linear**2, half**2))
    return np.concatenate([middle - reach, middle + reach], axis=1)


def around(points: Points) -> NDArray[np.float64]:
    """Return the box [4] around points [M, 2]."""
    box: NDArray[np.float64] = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
    return box


def _starts(count: int, edges: Sequence[Edge]) -> Boxes:
    seen: list[list[NDArray[np.float64]]] = [[] for _ in range(count)]
    for edge in edges:
        seen[edge.first].append(around(edge.match.first))
        seen[edge.second].append(around(edge.match.second))
    return np.stack([geometric_median(np.stack(some) if some else np.zeros((0, 4))) for some in seen])


def _views(count: int, edges: Sequence[Edge]) -> list[_Views]:
    nodes: list[list[int]] = [[] for _ in range(count)]
    transforms: list[list[NDArray[np.float64]]] = [[] for _ in range(count)]
    for edge in edges:
        nodes[edge.second].append(edge.first)
        transforms[edge.second].append(edge.match.transform)
        nodes[edge.first].append(edge.second)
        transforms[edge.first].append(inverse(edge.match.transform))
    return [
        _Views(nodes=np.array(some, np.intp), transforms=np.array(known, np.float64).reshape(-1, 2, 3))
        for some, known in zip(nodes, transforms, strict=True)
    ]


def inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert an affine model [2, 3]."""
    back = np.linalg.inv(transform[:, :2])
    return np.column_stack([back, -back @ transform[:, 2]])


def _moved(place: int, boxes: Boxes, views: _Views, frame: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    # The median of (1 - alpha) B + alpha A B over neighbours: B is common to all, so take the median of A B first.
    told = np.clip(project(boxes[views.nodes], views.transforms), 0, frame)
    merged: NDArray[np.float64] = (1 - alpha) * boxes[place] + alpha * geometric_median(told, tolerance=STILL / 10)
    return merged
