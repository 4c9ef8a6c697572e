"""Diffusion: the query's similarity spreads over the nearest-neighbour graph, also to references unlike the query.

Zhou et al., "Ranking on Data Manifolds", NIPS 2003; Iscen et al., "Efficient Diffusion on Region Manifolds", CVPR 2017,
global descriptors. With the affinity A of mutual neighbours (eq. 1 and 2: s^gamma where each is among the other's k
nearest, 0 elsewhere) and S = D^-1/2 A D^-1/2, the scores f solve (I - alpha S) f = y, by conjugate gradients; y holds
the similarity^gamma of the query's nearest. A query that is one of the references is first removed from
the graph. The settings are those of the code of Yang et al., AAAI 2019; affinity and Laplacian equal theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.index.engines import ENGINES, Vectors

NEIGHBOURS = 50
QUERY_NEIGHBOURS = 10
GAMMA = 3.0
ALPHA = 0.99
ITERATIONS = 20
"""Of the conjugate gradients, as in the CVPR paper; the ranking converges long before the scores do."""
_TOLERANCE = 1e-6
_ISOLATED = 1e-12
"""Added to the degrees, so that a picture without neighbours does not divide by 0."""
_NO_PART = -2.0
"""Used as a cosine: below every real one."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class NeighbourGraph:
    """The neighbour graph of the references, built once for any number of queries."""

    references: Vectors
    """[N, D], unit norm."""
    affinity: Any
    """A, sparse [N, N], symmetric."""
    degrees: NDArray[np.float64]
    """[N], the sums of A's rows."""
    gamma: float
    alpha: float

    @classmethod
    def over(
        cls,
        references: Floats,
        *,
        neighbours: int = NEIGHBOURS,
        gamma: float = GAMMA,
        alpha: float = ALPHA,
        threads: int = 0,
    ) -> NeighbourGraph:
        """Build the graph of references [N, D] of unit norm.

        alpha: how far similarity spreads, 0 <= alpha < 1; ValueError otherwise.
        """
        rows = np.ascontiguousarray(references, np.float32)
        engine = ENGINES["faiss-exact"](rows.shape[1], threads=threads)
        engine.add(np.arange(len(rows)), rows)
        # One more, since each is its own nearest.
        return cls.joined(rows, *engine.search(rows, neighbours + 1), gamma=gamma, alpha=alpha)

    @classmethod
    def joined(
        cls,
        references: Vectors,
        ids: NDArray[np.integer[Any]],
        similarities: Floats,
        *,
        gamma: float = GAMMA,
        alpha: float = ALPHA,
    ) -> NeighbourGraph:
        """Build the graph of references [N, D] from known neighbours (see `affinity`). ValueError as for `over`."""
        if not 0.0 <= alpha < 1.0:
            raise ValueError(f"got alpha = {alpha:g}; expected 0 to below 1, or the equation has no solution")
        joins = affinity(ids, similarities, gamma=gamma)
        degrees = np.asarray(joins.sum(axis=1), np.float64)
        return cls(references=references, affinity=joins, degrees=degrees, gamma=gamma, alpha=alpha)

    def laplacian(self, *, without: int | None = None) -> Any:
        """Return I - alpha S as a linear operator, [N, N]; of the graph without row `without`, if that is given."""
        from scipy.sparse.linalg import LinearOperator

        degrees = self.degrees
        if without is not None:
            # s_ij and s_ji are rounded differently, so the degree of a row's only neighbour may fall below 0.
            degrees = np.maximum(degrees - self.affinity[[without]].toarray()[0], 0.0)
        scale = (degrees + _ISOLATED) ** -0.5
        if without is not None:
            scale[without] = 0.0

        def times(x: NDArray[np.float64]) -> NDArray[np.float64]:
            spread: NDArray[np.float64] = scale * (self.affinity @ (scale * x.ravel()))
            return x.ravel() - self.alpha * spread

        return LinearOperator(self.affinity.shape, matvec=times, dtype=np.float64)


def affinity(ids: NDArray[np.integer[Any]], similarities: Floats, *, gamma: float = GAMMA) -> Any:
    """Return the affinity of mutual neighbours, sparse float64 [N, N], 0 on the diagonal (Iscen et al., eq. 1, 2).

    ids, similarities: [N, k], the nearest of each and their cosines. Negative cosines count as 0.
    """
    from scipy import sparse

    count, k = ids.shape
    places = np.repeat(np.arange(count), k), ids.ravel()
    joins = sparse.coo_array((np.ones(count * k), places), shape=(count, count)).tocsr()
    powers = np.clip(similarities.astype(np.float64).ravel(), 0.0, None) ** gamma
    powers[places[0] == places[1]] = 0.0
    return sparse.coo_array((powers, places), shape=(count, count)).tocsr().multiply(joins.T).tocsr()


def diffuse(
    queries: Floats,
    references: Floats | NeighbourGraph,
    *,
    own: Sequence[int | None] | None = None,
    query_neighbours: int = QUERY_NEIGHBOURS,
    iterations: int = ITERATIONS,
) -> NDArray[np.float32]:
    """Return how near each reference is to each query along the graph, float32 [Q, N]: rank by it, highest first.

    queries: [Q, D]; references: [N, D], all of unit norm, or their `NeighbourGraph`; own: the row of each query among
    the references, or None: that row is excluded and comes last (-3). References that the graph does not reach follow
    those that it reaches, ordered by cosine: their score is the cosine - 1, so at most 0.
    """
    graph = references if isinstance(references, NeighbourGraph) else NeighbourGraph.over(references)
    rows = own if own is not None else [None] * len(queries)
    if len(rows) != len(queries):
        raise ValueError(f"got {len(queries)} queries and {len(rows)} rows of their own; expected one for each")
    found = list(_diffused(np.asarray(queries, np.float32), graph, rows, query_neighbours, iterations))
    return np.stack(found) if found else np.empty((0, len(graph.references)), np.float32)


def _diffused(
    queries: Vectors, graph: NeighbourGraph, own: Sequence[int | None], k: int, iterations: int
) -> Iterator[NDArray[np.float32]]:
    from scipy.sparse.linalg import cg

    for query, row in zip(queries, own, strict=True):
        cosines = (graph.references @ query).astype(np.float64)
        if row is not None:
            cosines[row] = _NO_PART
        seed = _seed(cosines, k, graph.gamma)
        scores, _ = cg(graph.laplacian(without=row), seed, rtol=_TOLERANCE, maxiter=iterations)
        yield np.where(scores > 0, scores, np.minimum(cosines - 1.0, 0.0)).astype(np.float32)


def _seed(cosines: NDArray[np.float64], k: int, gamma: float) -> NDArray[np.float64]:
    """Return y: the k highest cosines to the power of gamma, 0 elsewhere."""
    seed = np.zeros_like(cosines)
    best = np.argsort(-cosines, kind="stable")[:k]
    seed[best] = np.clip(cosines[best], 0.0, None) ** gamma
    return seed
