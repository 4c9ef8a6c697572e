"""What a main index finds and takes, measured on the vectors of a store against exact search.

Queries are vectors of the store that are held out: neither the index nor the truth contains them. A search is what the
server does for one: candidates from the mapped index, their vectors from the store, exact scores in fp64. A hit counts
as right if its score is at least that of the true k-th, so that vectors of equal scores are right in any order.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.faiss_factory import LEAST_PER_LIST, is_refined, lists, made
from landseer.ensemble.index.faiss_index import FaissIndex
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.live_index import BATCH, inner_products, scores_of_enough
from landseer.ensemble.index.selection import Selection
from landseer.ensemble.store.store import Store
from landseer.ops.errors import OpsError

LEAST = 500
"""Fewest vectors to measure on."""
MARGIN = 16
"""Candidates of the truth beyond k: fp32 orders them, fp64 scores them."""
ROUNDS = 3
"""How often the queries are searched for a rate; the median counts."""
RESCORED = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Candidates for each hit that a sweep tries."""
FEWER = (384, 512, 640)
"""Values that PCA keeps of a vector's, where an index of all takes several times as long to search and to build."""
CODED = 0.6
"""Share of a vector's values that PCA keeps for codes, four in four bits, whose candidates finer codes order."""
ENOUGH = 0.002
"""Recall that fewer candidates may cost; saving more is not worth it."""
ALL = 0.9995
"""Recall from which on more effort is not tried."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Held-out queries, and what exact search finds for them."""

    queries: Vectors
    """[Q, D]."""
    kth: npt.NDArray[np.float64]
    """[Q] score of the true k-th hit."""
    found: npt.NDArray[np.int64]
    """[Q] number of true hits: k, or fewer where a filter lets fewer through."""
    selection: Selection | None = None


class TriedIndex(Protocol):
    """An index that is measured: FAISS's, or Milvus'."""

    @property
    def setting(self) -> IndexSetting:
        """How it is searched."""

    def searched_with(self, *, effort: int, rescored: int) -> TriedIndex:
        """Return the same index, searched with other numbers."""

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates, best first; rows may end in keys of -1."""


@dataclass(frozen=True, kw_only=True)
class IndexCost:
    """What an index took to build, and takes to keep."""

    name: str
    """Its factory string, and whose it is if it is not FAISS's."""
    size: int
    """Number of vectors."""
    seconds: float
    """To train and build it."""
    bytes: int
    """Of its files."""
    start_s: float
    """From opening its files to its first answer, in a process of its own; the files were just written."""
    own_bytes: int
    """Memory of that process's own (RssAnon) that it took: what is not mapped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltIndex:
    """An index on disk, mapped, or in a server."""

    index: TriedIndex
    cost: IndexCost
    clock: Callable[[], float] = time.process_time
    """Returns the processor time of all that answers searches."""


@dataclass(frozen=True, kw_only=True)
class TrialPoint:
    """One setting, measured."""

    setting: IndexSetting
    recall: float
    """Share of the true k hits that are found."""
    median_s: float
    """One search alone."""
    rate: float
    """Searches a second, `BATCH` at a time."""
    core_s: float
    """Processor time of one of them, over all cores: other programs hardly change it."""


class IndexTrial:
    """Measures indexes on the vectors of an open store."""

    def __init__(
        self, store: Store, *, queries: int, k: int, seed: int = 0, threads: int = 0, augmented: bool = False
    ) -> None:
        """Read the vectors once and search them exactly. OpsError for fewer than `LEAST`; StoreUnusable."""
        self.k, self._store, self._threads, self._augmented = k, store, threads, augmented
        if augmented and store.stats().augmentation is None:
            raise OpsError("the store has no augmented vectors; run `landseer augment` first")
        keys = np.concatenate([np.empty(0, np.int64), *(some for some, _ in store.vectors.scan())])
        if len(keys) < LEAST:
            raise OpsError(f"the store has {len(keys)} pictures; expected at least {LEAST} to measure indexes on")
        draws = np.random.default_rng(seed)
        self._held_out = np.sort(draws.choice(keys, min(queries, len(keys) // 10), replace=False))
        self.keys: Keys = np.setdiff1d(keys, self._held_out, assume_unique=True)
        """[n] of the indexed vectors."""
        self._queries = self._vectors(self._held_out)
        self._draws = draws

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return int(self._queries.shape[1])

    def questions(self, share: float = 1.0) -> Questions:
        """Return the queries with their true hits, among a random share of the vectors."""
        if share >= 1:
            return self._searched(None)
        count = max(1, round(share * len(self.keys)))
        return self._searched(Selection.of(self._draws.choice(self.keys, count, replace=False)))

    def build(self, factory: str, folder: Path, progress: Callable[[int], None] | None = None) -> BuiltIndex:
        """Build an index, save it in an empty folder, and map it. ValueError as of `FaissIndex.build`; OSError."""
        setting, began = IndexSetting(factory=factory), time.monotonic()
        index = FaissIndex.build(
            setting,
            self.dimension,
            self.scan,
            expected=len(self.keys),
            threads=self._threads,
            progress=progress,
        )
        seconds = time.monotonic() - began
        index.save(folder)
        del index
        started = _started(folder)
        cost = IndexCost(
            name=factory,
            size=len(self.keys),
            seconds=seconds,
            bytes=sum(file.stat().st_size for file in folder.iterdir()),
            start_s=started["seconds"],
            own_bytes=started["own_bytes"],
        )
        return BuiltIndex(index=FaissIndex.load(folder, threads=self._threads), cost=cost)

    def sweep(self, built: BuiltIndex, asked: Questions, *, enough: float | None = None) -> Iterator[TrialPoint]:
        """Yield a point for each effort, until one finds `ALL`, with as few candidates as find as much as many do.

        enough: a recall after which only one more effort is tried.
        """
        met = False
        for effort in efforts(built.index.setting.factory, self.dimension):
            rescored = self._rescored(built.index, asked, effort)
            found = self.point(built.index.searched_with(effort=effort, rescored=rescored), asked, built.clock)
            yield found
            if found.recall >= ALL or met:
                return
            met = enough is not None and found.recall >= enough

    def point(self, index: TriedIndex, asked: Questions, clock: Callable[[], float] = time.process_time) -> TrialPoint:
        """Measure an index with its setting. clock: as of `BuiltIndex`."""
        search, rows = partial(self._answers, index, asked), range(len(asked.queries))
        hits = search(rows)
        alone = [_seconds(partial(search, [row]), clock)[0] for row in rows]
        together, cores = zip(*(_seconds(partial(search, rows), clock) for _ in range(ROUNDS)), strict=True)
        return TrialPoint(
            setting=index.setting,
            recall=recall(hits, asked),
            median_s=float(np.median(alone)),
            rate=len(rows) / float(np.median(together)),
            core_s=float(np.median(cores)) / len(rows),
        )

    def scan(self) -> Iterator[tuple[Keys, npt.NDArray[np.float16]]]:
        """Yield the vectors that are not held out."""
        for keys, rows in self._store.vectors.scan(augmented=self._augmented):
            kept = ~np.isin(keys, self._held_out)
            yield keys[kept], rows[kept]

    def _vectors(self, keys: Keys) -> Vectors:
        return self._store.vectors.descriptors(keys.tolist(), augmented=self._augmented)

    def _searched(self, selection: Selection | None) -> Questions:
        """Search exactly, in one pass over the vectors."""
        queries, most = self._queries, self.k + MARGIN
        best = np.full((len(queries), most), -np.inf, np.float32)
        keys = np.full((len(queries), most), -1, np.int64)
        for some, rows in self.scan():
            chosen = np.ones(len(some), np.bool_) if selection is None else selection.has(some)
            if not chosen.any():
                continue
            scores = np.concatenate([best, queries @ rows[chosen].astype(np.float32).T], axis=1)
            them = np.concatenate([keys, np.broadcast_to(some[chosen], (len(queries), int(chosen.sum())))], axis=1)
            order = np.argpartition(-scores, most - 1, axis=1)[:, :most]
            best, keys = np.take_along_axis(scores, order, axis=1), np.take_along_axis(them, order, axis=1)
        exact = [self._scores(row[row >= 0], query)[: self.k] for row, query in zip(keys, queries, strict=True)]
        found = np.array([len(scores) for scores in exact])
        return Questions(
            queries=queries, kth=np.array([scores[-1] for scores in exact]), found=found, selection=selection
        )

    def _scores(self, keys: Keys, query: Vectors) -> npt.NDArray[np.float64]:
        """Return the exact scores of keys [C], best first; keys of -1 are none."""
        return np.sort(inner_products(self._vectors(keys[keys >= 0]), query))[::-1]

    def _answers(self, index: TriedIndex, asked: Questions, rows: Sequence[int]) -> list[npt.NDArray[np.float64]]:
        """Search for these queries, `BATCH` at a time; return the scores of the hits of each, best first."""
        answers = []
        for start in range(0, len(rows), BATCH):
            queries = asked.queries[rows[start : start + BATCH]]
            found, _ = index.search(queries, index.setting.candidates(self.k), asked.selection)
            answers += [self._best(keys[keys >= 0], query) for keys, query in zip(found, queries, strict=True)]
        return answers

    def _best(self, keys: Keys, query: Vectors) -> npt.NDArray[np.float64]:
        """Return the exact scores of the best k of candidates [C], best rough score first."""
        return np.sort(scores_of_enough(self._vectors, keys, query, self.k))[::-1][: self.k]

    def _rescored(self, index: TriedIndex, asked: Questions, effort: int) -> int:
        """Return the fewest candidates a hit that find about as much as the most do."""
        most = [some for some in RESCORED if some == 1 or not _keeps(index) or some * self.k <= effort]
        many = index.searched_with(effort=effort, rescored=most[-1])
        keys, _ = many.search(asked.queries, self.k * most[-1], asked.selection)
        scores = [
            inner_products(self._vectors(some[some >= 0]), query)
            for some, query in zip(keys, asked.queries, strict=True)
        ]
        found = [recall([np.sort(one[: self.k * some])[::-1][: self.k] for one in scores], asked) for some in most]
        return next(some for some, there in zip(most, found, strict=True) if there >= found[-1] - ENOUGH)


def recall(answers: Sequence[npt.NDArray[np.float64]], asked: Questions) -> float:
    """Return the share of the true hits that were found. answers: scores of the hits of each query."""
    right = sum(int(np.count_nonzero(scores >= kth)) for scores, kth in zip(answers, asked.kth, strict=True))
    return right / int(asked.found.sum())


def efforts(factory: str, dimension: int) -> list[int]:
    """Return the efforts that a sweep tries for a factory string: one if it has none. ValueError."""
    index = made(factory, dimension)
    if is_refined(index):
        return [100, 200, 400, 600, 800, 1200, 1600, 2400, 3200]
    if count := lists(index):
        return [2**power for power in range(1, count.bit_length()) if 2**power <= count // 2] or [1]
    return [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536] if "HNSW" in factory else [0]


def suiting(size: int, dimension: int) -> list[str]:
    """Return the factory strings to try for `size` vectors."""
    exact, fewer = ["Flat", "SQfp16"], [values for values in FEWER if 2 * values <= dimension <= size]
    many = [f"PCA{values},HNSW32,SQ8" for values in fewer] or ["HNSW32,SQ8"]
    if fewer:
        values = 8 * round(CODED * dimension / 8)
        many.append(f"PCAR{values},IVF1,PQ{values // 4}x4fs,Refine(SQ8)")
    count = 2 ** round(np.log2(2 * np.sqrt(size)))
    if size < LEAST_PER_LIST * count:
        return [*exact, *many]
    quantised = [f"PQ{dimension // 4}x4fs"] if dimension % 4 == 0 else []
    return [*exact, *many, *(f"IVF{count},{codes}" for codes in ("RaBitQfs", "RaBitQfs4", *quantised))]


def fastest(points: Sequence[TrialPoint], *, target: float) -> TrialPoint | None:
    """Return the point that takes least of the processor among those that find the target; None if none does."""
    return min((one for one in points if one.recall >= target), key=lambda one: one.core_s, default=None)


def _keeps(index: TriedIndex) -> bool:
    """Return whether an index keeps as many candidates as its effort says."""
    return "HNSW" in index.setting.factory or "Refine" in index.setting.factory


def _seconds(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds that work takes, and the processor time of all that does it."""
    began, used = time.perf_counter(), clock()
    work()
    return time.perf_counter() - began, clock() - used


def _started(folder: Path) -> dict[str, Any]:
    """Load an index in a process of its own; return what that took. OpsError."""
    script = [sys.executable, "-m", "landseer.ops.bench.index_start", str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OpsError(f"the index in {folder} cannot be started: {' '.join(done.stderr.split())[-300:]}")
    started: dict[str, Any] = json.loads(done.stdout)
    return started


def folder_of(home: Path, factory: str) -> Path:
    """Make and return an empty folder for an index below `home`."""
    folder = home / factory.replace(",", "-").replace("/", "-")
    folder.mkdir()
    return folder
