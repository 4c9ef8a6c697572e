"""Pictures that match, as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from landseer.export.curation.verification import Match


@dataclass(frozen=True, kw_only=True, eq=False)
class Edge:
    """Two pictures that match, by their places in the class; the match goes from the first to the second."""

    first: int
    second: int
    match: Match


def components(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of the nodes 0..count-1, each sorted, in the order of their first nodes."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for node in range(count):
        members.setdefault(root(node), []).append(node)
    return list(members.values())


def largest(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return the largest component, sorted; of equally large ones the one whose edges have the most inliers."""
    found = components(count, [(edge.first, edge.second) for edge in edges])
    home = {node: place for place, nodes in enumerate(found) for node in nodes}
    strength = [0] * len(found)
    for edge in edges:
        strength[home[edge.first]] += edge.match.inliers
    best = max(range(len(found)), key=lambda place: (len(found[place]), strength[place], -place), default=None)
    return [] if best is None else found[best]
