"""The baseline that anybody would write: RootSIFT, brute force, RANSAC. It needs no model and no service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from landseer.ensemble.cores import cores
from landseer.ensemble.pictures.pictures import Prepared
from landseer.ops.evaluate.cache import ArrayReader, vector_cache
from landseer.ops.evaluate.database import Begin
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.describe import Arrays, describe_by
from landseer.ops.evaluate.methods import Answer, Method
from landseer.ops.evaluate.ranked import in_order
from landseer.ops.evaluate.sift import LONG_SIDE, PROFILE, SiftKeypoints, keypoints
from landseer.ops.evaluate.sift_search import SiftSearch
from landseer.ops.evaluate.system import About, Rank, Searched
from landseer.ops.progress import bars

DESCRIPTORS, POSITIONS = "sift_descriptors", "sift_positions"
"""Names in the cache."""


class SiftSystem:
    """Ranks by the row `sift` alone."""

    def __init__(self, cache: Path) -> None:
        """cache: the file that keeps keypoints."""
        self._cache, self._arrays = cache, ArrayReader(cache, PROFILE)
        self._known: tuple[Dataset, Searched] | None = None
        self.about = About(name="RootSIFT", long_side=LONG_SIDE, details={"keypoints": PROFILE.backbone})

    def prepare(self, dataset: Dataset, methods: Sequence[Method], console: Console) -> dict[Path, str]:
        """Find the keypoints that the cache lacks. Returns unreadable pictures with the reason."""
        shots = dataset.pictures()
        with vector_cache(self._cache, PROFILE.fingerprint) as cache, bars(console) as progress:
            task = progress.add_task("finding keypoints: sift", total=len(shots))
            found = describe_by(
                (DESCRIPTORS, POSITIONS),
                shots,
                lambda: _described,
                PROFILE,
                cache,
                progress=lambda: progress.advance(task),
            )
        self._arrays.keys.update(found.keys)
        return found.unreadable

    def ranker(self, dataset: Dataset) -> Rank:
        """Return a function that ranks the data set. A data set is matched once, beside however many systems."""

        def rank(method: Method, begin: Begin) -> Searched:
            if self._known is None or self._known[0] is not dataset:
                self._known = dataset, self._searched(dataset, begin)
            return self._known[1]

        return rank

    def _searched(self, dataset: Dataset, begin: Begin) -> Searched:
        search = SiftSearch(self._keypoints([Shot(path=path) for path in dataset.references]), threads=cores())
        queries = self._keypoints([query.shot for query in dataset.queries])
        progress, answers = begin("matching", len(queries)), list[Answer]()
        for query, own in zip(queries, dataset.own_rows(), strict=True):
            begun = time.perf_counter()
            [ranked] = in_order(search.scores(query)[None], [own])
            seconds = time.perf_counter() - begun
            answers.append(Answer(order=ranked.rows, seconds=seconds, index_bytes=search.index_bytes))
            progress()
        return Searched.of(answers)

    def _keypoints(self, shots: Sequence[Shot]) -> list[SiftKeypoints]:
        pairs = zip(self._arrays.read(DESCRIPTORS, shots), self._arrays.read(POSITIONS, shots), strict=True)
        return [SiftKeypoints(descriptors=descriptors, positions=positions) for descriptors, positions in pairs]


def _described(prepared: Prepared) -> Arrays:
    found = keypoints(prepared.pixels)
    return {DESCRIPTORS: found.descriptors, POSITIONS: found.positions}
