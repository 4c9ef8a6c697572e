"""Searches of a data set by co-attention, aggregated local descriptors and spatial verification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import asmk
from landseer.ensemble.evaluation import Evaluation, Truth, evaluate
from landseer.ensemble.ingest.regions import LEAST
from landseer.ensemble.verify.verification import VerificationSettings
from landseer.export.models.pooling import Projection
from landseer.ops.evaluate.arrays import BOXES, LOCALS, QUERY_VECTOR
from landseer.ops.evaluate.cached_arrays import CachedPictureArrays
from landseer.ops.evaluate.database import Database
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION, RANKERS, Answer, Method, answered, answers
from landseer.ops.evaluate.picture_arrays import PictureArrays
from landseer.ops.evaluate.regions import Boxes, crops
from landseer.ops.evaluate.reranking import COATTENTION, BySpace, Reranker, Reranking
from landseer.ops.evaluate.space import Search, Space
from landseer.ops.evaluate.system import Searched
from landseer.ops.evaluate.words import inverted, searching, widened
from landseer.ops.research.varied_coattention import Numbers, ReducedArrays, Unreduced, VariedArrays, unreduced

FIRST = "none"
"""The row that others are compared with by default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionalRow:
    """One way to search."""

    name: str
    figures: Evaluation
    searched: Searched
    against: str = FIRST
    """The name of the row it is compared with."""


class Judge:
    """Searches a data set in many ways, and judges the rankings."""

    def __init__(self, system: InProcessSystem, dataset: Dataset, reduction: Projection) -> None:
        """dataset: prepared by the system for every row; reduction: from local features to co-attention vectors."""
        self.dataset, self.space = dataset, system.space(dataset)
        self._system, self._reduction = system, reduction
        self._truths: list[Truth] = dataset.truths()

    def by(self, name: str, method: Method, *, against: str = FIRST, space: Space | None = None) -> RegionalRow:
        """Search by a method. space: by default that of the data set."""
        return self._row(name, list(answers(method, space or self.space)), against)

    @property
    def exported(self) -> Projection:
        """The reduction of the exported models."""
        return self._reduction

    def varied(self, numbers: Numbers) -> Space:
        """Return the space with co-attention vectors made with other numbers than exported."""
        side = VariedArrays(self.space.arrays, self._system.profile, self._reduction, numbers)
        return replace(self.space, arrays=side)

    def reduced(self, reduction: Projection) -> Space:
        """Return the space with co-attention vectors by another reduction than exported."""
        side = ReducedArrays(self.space.arrays, self._system.profile, reduction, self._pooled)
        return replace(self.space, arrays=side)

    @cached_property
    def _pooled(self) -> Unreduced:
        return unreduced(self.space.arrays, self._system.profile, self.space.own)

    def features_each(self, space: Space) -> float:
        """Return the mean number of local features per picture that a varied space was made from."""
        if not isinstance(space.arrays, VariedArrays):
            raise TypeError(f"got a {type(space.arrays).__name__}; expected one with other numbers")
        return space.arrays.features_each()

    def by_query_vectors(self, space: Space | None = None) -> Space:
        """Return a space with the co-attention vectors of whole pictures as global descriptors.

        These are the reduced GeM of the strongest local features: the global descriptor of co-attention's paper.
        """
        space = space or self.space
        queries, references = (
            np.stack(list(read(QUERY_VECTOR))) for read in (space.arrays.of_queries, space.arrays.of_references)
        )
        return replace(space, queries=queries, database=Database(vectors=references))

    def verified(self, name: str, settings: VerificationSettings, *, candidates: int = 100) -> RegionalRow:
        """Search by the cosine, then verify the first candidates."""
        reranker = BySpace(Reranking(name="spatial", candidates=candidates), self.space.arrays, settings)
        return self._searched(name, RANKERS[FIRST](NO_EXPANSION, self.space), reranker)

    def regional(self, name: str, method: Method, boxes: Boxes, *, against: str) -> RegionalRow:
        """Search by a method with the regions that `boxes` selects."""
        return self.by(name, method, against=against, space=replace(self.space, arrays=self._side(boxes)))

    def united(self, name: str, words: int, boxes: Boxes) -> RegionalRow:
        """Search by ASMK* of the features of a picture and its regions as one set: the same index size as R-ASMK*."""
        book, side = self.space.arrays.codebook(words), self._side(boxes)
        pairs = zip(side.of_references(LOCALS), side.regions(), strict=True)
        pictures = [asmk(widened(np.concatenate([whole, *some])), book).binarised() for whole, some in pairs]
        return self._searched(name, searching(inverted(pictures, book, "asmk"), book, self.space), Reranker())

    def sharing(self, words: int) -> float:
        """Return the share of references that have a word in common with the query, the mean over queries."""
        book = self.space.arrays.codebook(words)
        pictures = [asmk(widened(rows), book).binarised() for rows in self.space.arrays.of_references(LOCALS)]
        file = inverted(pictures, book, "r-asmk")
        asked = (asmk(widened(rows), book).binarised() for rows in self.space.arrays.of_queries(LOCALS))
        return float(np.mean([len(file.sharing(one)) / file.size for one in asked]))

    def regions_each(self, boxes: Boxes) -> float:
        """Return the mean number of regions per picture, without the whole picture."""
        return float(np.mean([len(some) for some in self._side(boxes).regions()]))

    def _side(self, boxes: Boxes) -> PictureArrays:
        side = self.space.arrays
        if not isinstance(side, CachedPictureArrays):
            raise TypeError(f"got a {type(side).__name__}; expected the arrays of the data set itself")
        # First the boxes that are described, then the threshold, so that it only removes boxes: attention's boxes are
        # ordered by the attention that they contain, not by score.
        described = (some[some[:, 4] >= LEAST][: boxes.most] for some in side.of_references(BOXES))
        return side.with_regions(crops(list(self.dataset.references), described, boxes))

    def _searched(self, name: str, search: Search, reranker: Reranker) -> RegionalRow:
        return self._row(name, list(answered(search, reranker, self.space)), FIRST)

    def _row(self, name: str, found: Sequence[Answer], against: str) -> RegionalRow:
        searched = Searched.of(found)
        figures = evaluate(searched.orders, self._truths, ks=(1, 10))
        return RegionalRow(name=name, figures=figures, searched=searched, against=against)


def attended(weight: float = 1.0, *, name: str = COATTENTION, candidates: int = 100) -> Method:
    """Return co-attention over the global short list."""
    return replace(NO_EXPANSION, reranking=Reranking(name=name, candidates=candidates, weight=weight))


def gains(row: RegionalRow, base: RegionalRow) -> Iterator[NDArray[np.float64]]:
    """Yield the gains of a row over another by query, [Q]: in average precision, and in the first hit."""
    yield row.figures.aps - base.figures.aps
    yield row.figures.precisions[:, 0] - base.figures.precisions[:, 0]
