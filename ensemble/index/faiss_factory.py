"""FAISS indexes by factory string: made, checked, and trained on a sample of the vectors."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np

from landseer.ensemble.index.engines import Vectors
from landseer.ensemble.index.main_index import BuildStopped

LEAST_SAMPLE = 20_000
"""Vectors of a sample without lists, or all if there are fewer: for the ranges of scalars, small codebooks, PCA."""
PER_LIST = 64
"""Vectors of a sample for each list."""
LEAST_PER_LIST = 39
"""FAISS warns of fewer."""
ROUNDS = 10
"""Of k-means, as in FAISS."""
CONSTRUCTION = 200
"""HNSW's efConstruction, five times FAISS's default: a graph that takes longer to build, for searches of less effort.
Among 20,000 vectors, 128 nodes found 0.984 with it and 0.969 with 80, which took 0.4 times as long to build."""
EXAMPLES = "Flat, HNSW32,SQ8 or IVF1024,RaBitQfs4"
_REFINED = re.compile(r"(?P<coarse>.+),Refine\((?P<fine>[A-Za-z0-9]+)\)")
"""An index whose candidates are compared by finer codes."""


def made(factory: str, dimension: int, *, by_distance: bool = False) -> Any:
    """Return the empty FAISS index of a factory string, by inner product. ValueError if it cannot be served.

    by_distance: compare by distances instead.
    """
    import faiss

    metric = faiss.METRIC_L2 if by_distance else faiss.METRIC_INNER_PRODUCT
    refined = _REFINED.fullmatch(factory)
    try:
        index = faiss.index_factory(dimension, refined["coarse"] if refined else factory, metric)
        if refined:
            index = _with_finer(index, refined["fine"])
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[-1].rpartition("Error: ")[2]
        raise ValueError(
            f"FAISS cannot make the index {factory!r} for vectors of {dimension} values ({why}); expected a factory "
            f"string such as {EXAMPLES}"
        ) from error
    for transform in transforms(index):
        if transform.d_out > transform.d_in:
            made_of = f"makes {transform.d_out:,} values of {transform.d_in:,}"
            raise ValueError(f"the index {factory!r} {made_of}; expected no more than there are")
    kind = inner(index)
    if not _is_served(kind):
        raise ValueError(
            f"the index {factory!r} is FAISS's {type(kind).__name__}, which Landseer does not serve: it needs HNSW, "
            f"codes alone, or IVF whose lists are found by exact search, as in {EXAMPLES}; finer codes (Refine) it has "
            "for IVF1, as in IVF1,PQ32x4fs,Refine(SQ8). Scores of the stored vectors, and keys (IDMap), it adds itself"
        )
    if is_graph(index):
        kind.hnsw.efConstruction = CONSTRUCTION
    return index


def inner(index: Any) -> Any:
    """Return the index that searches, behind transforms of the vectors if there are any."""
    import faiss

    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def transforms(index: Any) -> list[Any]:
    """Return the transforms in front of an index, in order."""
    import faiss

    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain: Any = index.chain
    return [faiss.downcast_VectorTransform(chain.at(place)) for place in range(chain.size())]


def is_graph(index: Any) -> bool:
    """Return whether an index is an HNSW."""
    import faiss

    return isinstance(inner(index), faiss.IndexHNSW)


def is_refined(index: Any) -> bool:
    """Return whether an index compares the candidates of its codes by finer ones."""
    import faiss

    return isinstance(inner(index), faiss.IndexRefine)


def finest(index: Any) -> Any:
    """Return the index of the most precise codes in an index: a graph's nodes, the finer ones, or its only ones."""
    import faiss

    kind = inner(index)
    if is_graph(index):
        return faiss.downcast_index(kind.storage)
    return faiss.downcast_index(kind.refine_index) if is_refined(index) else kind


def lists(index: Any) -> int:
    """Return the number of lists of an index; 0 unless it is an IVF."""
    import faiss

    kind = _scanned(index)
    return int(kind.nlist) if isinstance(kind, faiss.IndexIVF) else 0


def code_bytes(index: Any) -> int:
    """Return the bytes of a vector's codes, without its key and its place in lists or a graph."""
    coarse = int(_scanned(index).code_size) if is_refined(index) else 0
    return coarse + int(finest(index).code_size)


def least_vectors(index: Any) -> int:
    """Return the fewest vectors that an index can be trained on well: for PCA as many as they have values."""
    values = [int(one.d_in) for one in transforms(index) if not one.is_trained]
    return max([LEAST_PER_LIST * lists(index), *values])


def sample_size(index: Any) -> int:
    """Return how many vectors to train an index on; 0 if it needs no training."""
    return 0 if index.is_trained else max(LEAST_SAMPLE, PER_LIST * lists(index))


def train(index: Any, sample: Vectors, stop: threading.Event | None = None) -> None:
    """Train an index on vectors [n, D]. BuildStopped soon after `stop` is set, ValueError for too few vectors."""
    outputs = [int(one.d_out) for one in transforms(index) if not one.is_trained]
    if len(sample) < max([1, lists(index), *outputs]):
        what = f"of {lists(index):,} lists" if lists(index) else "of these values"
        raise ValueError(
            f"got {len(sample):,} vectors to train an index {what} on; expected at least "
            f"{max(1, least_vectors(index)):,}. Search so few vectors exactly (Flat), or take fewer lists or values"
        )
    for transform in transforms(index):
        if not transform.is_trained:
            transform.train(sample)
            _keep_order(transform)
        sample = transform.apply(sample)
    kind = _scanned(index)
    if lists(index):
        kind.quantizer.train(sample)
        kind.quantizer.add(_centroids(sample, kind.nlist, stop))
    kind.train(sample)
    if is_refined(index):
        finest(index).train(sample)
        inner(index).is_trained = True
    index.is_trained = True


def reserve(index: Any, count: int) -> None:
    """Make room for so many vectors in an empty index: growing step by step takes up to twice the memory of its codes.

    An IVF grows list by list, which takes little more.
    """
    import faiss

    kind = inner(index)
    if isinstance(kind, faiss.IndexIVF):
        return
    codes = finest(index)
    rooms = [(codes.codes, count * codes.code_size)]
    if is_graph(index):
        # One node in M of a level is on the next one, too, where it has M neighbours instead of 2 M. They are drawn.
        most = kind.hnsw.nb_neighbors(1)
        rooms.append((kind.hnsw.neighbors, int(1.05 * count * (2 * most + most / max(1, most - 1)))))
    for room, size in rooms:
        room.resize(size)
        room.clear()


def _keep_order(transform: Any) -> None:
    """Have PCA subtract no mean: that changes inner products by a number of each vector's own, and no distance."""
    import faiss

    if isinstance(transform, faiss.LinearTransform) and transform.have_bias:
        faiss.copy_array_to_vector(np.zeros(transform.d_out, np.float32), transform.b)


def _scanned(index: Any) -> Any:
    """Return the index whose codes are searched first: all, but for finer codes."""
    import faiss

    kind = inner(index)
    return faiss.downcast_index(kind.base_index) if is_refined(index) else kind


def _with_finer(index: Any, codes: str) -> Any:
    """Return an index, behind its transforms, with finer codes of a factory string beside its own. FAISS's errors."""
    import faiss

    coarse = inner(index)
    finer: Any = faiss.index_factory(coarse.d, codes, coarse.metric_type)
    both: Any = faiss.IndexRefine(coarse, finer)
    # What owns what is for FAISS to free; Python must not do so, too.
    both.own_fields = both.own_refine_index = True
    finer.this.disown()
    if coarse is index:
        coarse.this.disown()
        return both
    both.this.disown()
    index.index = both
    return index


def _is_served(kind: Any) -> bool:
    """Return whether an index, without its transforms, can search all that a filter lets through."""
    import faiss

    if isinstance(kind, faiss.IndexRefine):
        coarse, finer = faiss.downcast_index(kind.base_index), faiss.downcast_index(kind.refine_index)
        alone = isinstance(coarse, faiss.IndexIVF) and coarse.nlist == 1
        return alone and _is_served(coarse) and isinstance(finer, faiss.IndexFlat | faiss.IndexScalarQuantizer)
    if isinstance(kind, faiss.IndexIVF):
        return isinstance(faiss.downcast_index(kind.quantizer), faiss.IndexFlat)
    codes = faiss.downcast_index(kind.storage) if isinstance(kind, faiss.IndexHNSW) else kind
    return isinstance(codes, faiss.IndexFlatCodes)


def _centroids(sample: Vectors, count: int, stop: threading.Event | None) -> Vectors:
    """Return centroids [count, D] by spherical k-means. FAISS would not stop before the last round."""
    import faiss

    limits: dict[str, Any] = {"min_points_per_centroid": 1, "max_points_per_centroid": len(sample)}
    found: Vectors | None = None
    for round_number in range(ROUNDS):
        if stop is not None and stop.is_set():
            raise BuildStopped("stopped while the index was trained")
        one = faiss.Kmeans(sample.shape[1], count, niter=1, spherical=True, seed=1 + round_number, **limits)
        one.train(sample, init_centroids=found)
        found = np.ascontiguousarray(one.centroids)
    assert found is not None
    return found
