"""Rankings by visual words: ASMK* and R-ASMK* over an inverted file, and the word filter of co-attention's paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Ids
from landseer.ensemble.regional.aggregate import Binary, asmk, rasmk
from landseer.ensemble.regional.codebook import Codebook
from landseer.ensemble.regional.inverted_file import InvertedFile
from landseer.ensemble.regional.kernel import KERNELS
from landseer.ops.evaluate.arrays import LOCALS
from landseer.ops.evaluate.ranked import Ranked
from landseer.ops.evaluate.space import FEW, Search, Space

ASMK, RASMK, WORDS = "asmk", "rasmk", "words"
Halves = NDArray[np.float16]


def by_asmk(words: int, space: Space) -> Search:
    """Rank by ASMK* of the whole pictures."""
    book = space.local.codebook(words)
    pictures = [asmk(widened(rows), book).binarised() for rows in space.local.of_references(LOCALS)]
    return searching(inverted(pictures, book, "asmk"), book, space)


def by_rasmk(words: int, space: Space) -> Search:
    """Rank by R-ASMK* of the pictures and their regions, the query as a whole: as D2R does it."""
    book = space.local.codebook(words)
    wholes, regions = space.local.of_references(LOCALS), space.local.regions()
    pictures = [regional([whole, *some], book) for whole, some in zip(wholes, regions, strict=True)]
    return searching(inverted(pictures, book, "r-asmk"), book, space)


def by_shared_words(words: int, space: Space, before: Callable[[Space], Sequence[Ranked]]) -> Search:
    """Rank as `before` does, those that share a word with the query first. Hu and Bors 2020 leave the others out."""
    book = space.local.codebook(words)
    pictures = [asmk(widened(rows), book).binarised() for rows in space.local.of_references(LOCALS)]
    file, queries = inverted(pictures, book, "r-asmk"), list(space.local.of_queries(LOCALS))

    def rank(block: Space) -> list[Ranked]:
        asked = [asmk(widened(queries[block.first + place]), book).binarised() for place in range(len(block.queries))]
        return [filtered(ranked, file.sharing(one)) for ranked, one in zip(before(block), asked, strict=True)]

    return Search(rank=rank, index_bytes=space.database.vectors[:1].nbytes + file.nbytes / len(pictures), block=FEW)


def regional(regions: Sequence[Halves], book: Codebook) -> Binary:
    """Return R-ASMK* of regions [n, D] each, the first of them the whole picture."""
    rows = widened(np.concatenate(regions))
    return rasmk(rows, [len(one) for one in regions], book).binarised()


def inverted(pictures: Sequence[Binary], book: Codebook, kernel: str) -> InvertedFile:
    """Return the inverted file of pictures, under their numbers; kernel: a key of `KERNELS`."""
    file = InvertedFile(words=book.words, bits=book.dimension, kernel=KERNELS[kernel], codebook=book.fingerprint)
    file.add(np.arange(len(pictures)), pictures)
    return file


def searching(file: InvertedFile, book: Codebook, space: Space) -> Search:
    """Search for the local descriptors of each query, which is given its words first."""
    queries = list(space.local.of_queries(LOCALS))

    def rank(block: Space) -> list[Ranked]:
        asked = range(block.first, block.first + len(block.queries))
        return [
            found(file, asmk(widened(queries[one]), book).binarised(), own)
            for one, own in zip(asked, block.own, strict=True)
        ]

    return Search(rank=rank, index_bytes=file.nbytes / max(1, file.size), block=1)


def found(file: InvertedFile, query: Binary, own: int | None) -> Ranked:
    """Return the ranking of all pictures without the query itself; those that share no word with it come last."""
    keys, scores = file.search(query, file.size)
    rest = np.setdiff1d(np.arange(file.size), keys)
    rows = np.concatenate([keys, rest])
    kept = np.flatnonzero(rows != own) if own is not None else slice(None)
    return Ranked(rows[kept], np.concatenate([scores, np.full(len(rest), min(0.0, scores.min(initial=0.0)))])[kept])


def filtered(ranked: Ranked, sharing: Ids) -> Ranked:
    """Return a ranking with the rows that share a word first, each part in the order it had.

    Those that follow are never scored above the last of the others, so that scores descend.
    """
    shares = np.isin(ranked.rows, sharing)
    order = np.argsort(~shares, kind="stable")
    return Ranked(ranked.rows[order], np.minimum.accumulate(ranked.scores[order]))


def widened(rows: Halves) -> NDArray[np.float32]:
    """Return local descriptors as the regional maths takes them."""
    return rows.astype(np.float32)
