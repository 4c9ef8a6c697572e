"""Rankings by visual words: the kernels of D2R, binarised and in full, and the word filter of Hu and Bors 2020."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Aggregated, Binary, asmk, naive_rasmk, rasmk, rvlad
from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import INNER_PRODUCT, KERNELS, Kernel
from landseer.ensemble.evaluation import Ids
from landseer.ops.evaluate.arrays import LOCALS
from landseer.ops.evaluate.ranked import Ranked, in_order
from landseer.ops.evaluate.regional_search import Pooling, RegionalSearch
from landseer.ops.evaluate.space import FEW, Search, Space
from landseer.ops.evaluate.vector_lists import VectorLists

ASMK, RASMK, WORDS = "asmk", "rasmk", "words"
Halves = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class InFull:
    """A kernel over fp32 residuals, of the picture alone or also of its regions."""

    aggregate: Callable[[NDArray[np.float32], Sequence[int], Codebook], Aggregated]
    """From features and the number of them in each region."""
    kernel: Kernel
    regional: bool


def _of_all(rows: NDArray[np.float32], counts: Sequence[int], book: Codebook) -> Aggregated:
    """Return ASMK of all features, ignoring regions."""
    return asmk(rows, book)


IN_FULL: Mapping[str, InFull] = {
    "vlad": InFull(aggregate=rvlad, kernel=INNER_PRODUCT, regional=False),
    "rvlad": InFull(aggregate=rvlad, kernel=INNER_PRODUCT, regional=True),
    "asmk-fp32": InFull(aggregate=_of_all, kernel=KERNELS["asmk"], regional=False),
    "rasmk-fp32": InFull(aggregate=rasmk, kernel=KERNELS["r-asmk"], regional=True),
    "rasmk-naive": InFull(aggregate=naive_rasmk, kernel=KERNELS["r-asmk"], regional=True),
}
"""For comparison: residuals are not binarised."""
POOLED: Mapping[str, Pooling] = {"asmk-max": "max", "asmk-mean": "mean"}
"""Regional search by ASMK*."""


def by_asmk(words: int, space: Space) -> Search:
    """Rank by ASMK* of the whole pictures."""
    book = space.arrays.codebook(words)
    pictures = [asmk(widened(rows), book).binarised() for rows in space.arrays.of_references(LOCALS)]
    return searching(inverted(pictures, book, "asmk"), book, space)


def by_rasmk(words: int, space: Space) -> Search:
    """Rank by R-ASMK* of the pictures and their regions, as D2R does; the query is the whole picture."""
    book = space.arrays.codebook(words)
    pictures = [regional(regions, book) for regions in _regions(space, True)]
    return searching(inverted(pictures, book, "r-asmk"), book, space)


def by_residuals(name: str, words: int, space: Space) -> Search:
    """Rank by one of `IN_FULL`; the query is the whole picture."""
    form, book = IN_FULL[name], space.arrays.codebook(words)
    lists = VectorLists(
        [_in_full(form, regions, book) for regions in _regions(space, form.regional)],
        words=book.words,
        kernel=form.kernel,
    )
    queries = list(space.arrays.of_queries(LOCALS))

    def scores(query: int) -> NDArray[np.float64]:
        return lists.scores(_in_full(form, [queries[query]], book))

    return Search(rank=partial(_scored, scores), index_bytes=lists.nbytes / max(1, len(lists.sizes)), block=1)


def by_regions(name: str, words: int, space: Space) -> Search:
    """Rank by regional search, one of `POOLED`; the query is the whole picture."""
    book = space.arrays.codebook(words)
    pictures = [[asmk(widened(one), book).binarised() for one in regions] for regions in _regions(space, True)]
    search, queries = RegionalSearch(pictures, book), list(space.arrays.of_queries(LOCALS))

    def scores(query: int) -> NDArray[np.float64]:
        return search.scores(asmk(widened(queries[query]), book).binarised(), POOLED[name])

    return Search(rank=partial(_scored, scores), index_bytes=search.file.nbytes / max(1, len(pictures)), block=1)


def _scored(scores: Callable[[int], NDArray[np.float64]], block: Space) -> list[Ranked]:
    """Rank all references by their scores. scores: from the number of a query to [N]."""
    found = [scores(block.first + place) for place in range(len(block.queries))]
    return in_order(np.stack(found), block.own)


def _in_full(form: InFull, regions: Sequence[Halves], book: Codebook) -> Aggregated:
    return form.aggregate(widened(np.concatenate(regions)), [len(one) for one in regions], book)


def _regions(space: Space, every: bool) -> Iterator[list[Halves]]:
    """Yield the local descriptors of each reference: the whole picture, then its regions if `every`."""
    wholes = space.arrays.of_references(LOCALS)
    if not every:
        yield from ([whole] for whole in wholes)
        return
    yield from ([whole, *some] for whole, some in zip(wholes, space.arrays.regions(), strict=True))


def by_shared_words(words: int, space: Space, before: Callable[[Space], Sequence[Ranked]]) -> Search:
    """Rank as `before` does, but pictures that share a word with the query first. Hu and Bors 2020 drop the others."""
    book = space.arrays.codebook(words)
    pictures = [asmk(widened(rows), book).binarised() for rows in space.arrays.of_references(LOCALS)]
    file, queries = inverted(pictures, book, "r-asmk"), list(space.arrays.of_queries(LOCALS))

    def rank(block: Space) -> list[Ranked]:
        asked = [asmk(widened(queries[block.first + place]), book).binarised() for place in range(len(block.queries))]
        return [filtered(ranked, file.sharing(one)) for ranked, one in zip(before(block), asked, strict=True)]

    return Search(rank=rank, index_bytes=space.database.vectors[:1].nbytes + file.nbytes / len(pictures), block=FEW)


def regional(regions: Sequence[Halves], book: Codebook) -> Binary:
    """Return R-ASMK* of regions [n, D]; the first is the whole picture."""
    rows = widened(np.concatenate(regions))
    return rasmk(rows, [len(one) for one in regions], book).binarised()


def inverted(pictures: Sequence[Binary], book: Codebook, kernel: str) -> InvertedFile:
    """Return the inverted file of pictures, with their numbers as keys. kernel: a key of `KERNELS`."""
    file = InvertedFile(words=book.words, bits=book.dimension, kernel=KERNELS[kernel])
    file.add(np.arange(len(pictures)), pictures)
    return file


def searching(file: InvertedFile, book: Codebook, space: Space) -> Search:
    """Search by the local descriptors of each query; assigning words to them counts in its time."""
    queries = list(space.arrays.of_queries(LOCALS))

    def rank(block: Space) -> list[Ranked]:
        asked = range(block.first, block.first + len(block.queries))
        return [
            found(file, asmk(widened(queries[one]), book).binarised(), own)
            for one, own in zip(asked, block.own, strict=True)
        ]

    return Search(rank=rank, index_bytes=file.nbytes / max(1, file.size), block=1)


def found(file: InvertedFile, query: Binary, own: int | None) -> Ranked:
    """Return the ranking of all pictures but the query itself; those that share no word with it come last."""
    keys, scores = file.search(query, file.size)
    rest = np.setdiff1d(np.arange(file.size), keys)
    rows = np.concatenate([keys, rest])
    kept = np.flatnonzero(rows != own) if own is not None else slice(None)
    return Ranked(rows[kept], np.concatenate([scores, np.full(len(rest), min(0.0, scores.min(initial=0.0)))])[kept])


def filtered(ranked: Ranked, sharing: Ids) -> Ranked:
    """Return a ranking with the rows that share a word first; otherwise the order stays.

    Scores of the rest are lowered where needed, so that scores descend.
    """
    shares = np.isin(ranked.rows, sharing)
    order = np.argsort(~shares, kind="stable")
    return Ranked(ranked.rows[order], np.minimum.accumulate(ranked.scores[order]))


def widened(rows: Halves) -> NDArray[np.float32]:
    """Return local descriptors in fp32."""
    return rows.astype(np.float32)
