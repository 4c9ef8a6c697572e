"""The index for the event loop: waiting searches are batched, and answers are exact and reproducible.

One thread owns the engine and takes jobs from a queue in order, so nothing is locked, and a search sees all changes
queued before it. Searches between two changes become one call of the engine if they have the same selection.

Large collections have a main index, too, which never changes: the engine then holds what was added since it was built,
and tombstones tell what was removed. A new main index is built elsewhere and takes its place between two searches.
An engine in another process has no main index beside it; while nothing is asked, it is brought up to date.

Engines compute in fp32, in an order that depends on the batch, so scores differ in the last bits between calls. Here
they only select candidates. Every candidate is scored again in fp64, row by row in a fixed order; the list is sorted by
(-score, key) and extended until rounding cannot have excluded a better vector. So a query gets the same bytes whatever
it was batched with, and they equal a full sort over brute force. A main index may be approximate: then some of the
nearest may be missing, but the scores of those found are the same.

Of an approximate one, candidates are scored in parts, until a part has none of the best.

Measured with 1280 values: rescoring takes 0.06 ms for k = 10 (43 candidates), 0.16 ms for k = 100 and 2 ms for k = 1000
(1,157 candidates), compared to 20 ms and more for the search itself (see `engines`). Ties cost most: a query for which
20,000 copies of one picture tie at the top took 0.7 s.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.errors import LandseerError, Overloaded
from landseer.ensemble.index.engines import IndexEngine, Keys, RemoteEngine, Vectors
from landseer.ensemble.index.living_main import LivingMain, Stored
from landseer.ensemble.index.selection import Selecting, Selection
from landseer.ensemble.telemetry.metrics import only_metrics

log = logging.getLogger(__name__)
BATCH = 64
"""Most searches in one call of the engine."""
MOST_WAITING = 1024
"""Most searches in the queue: sixteen calls of the engine."""
CHUNK = 4096
"""Candidates rescored at a time; bounds the memory for long lists."""
MANY = 25
"""Hits from which on the candidates of an approximate index are scored in parts."""
PART, PARTS = 48, 8
"""Candidates that a part has at least, and the parts that all of them make at most."""
IDLE_S = 1.0
"""Seconds without a job after which an engine in another process is tended."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """The nearest vectors, best first; ties go to the smaller key."""

    keys: Keys
    """[n]: k, or all that may be found if there are fewer."""
    scores: npt.NDArray[np.float32]
    """[n] inner products, computed in fp64 from the stored fp16 values and rounded once."""
    lacks: str = ""
    """What may be missing, and why, beside what an approximate index misses; empty if nothing."""


_Ranked = tuple[Keys, npt.NDArray[np.float64]]
"""The keys and exact scores of hits, best first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    query: Vectors  # [D]
    k: int
    selection: Selecting | None
    answer: Future[Hits] = field(default_factory=Future)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    work: Callable[[], Any]
    answer: Future[Any] = field(default_factory=Future)


class LiveIndex:
    """An asynchronous index over an engine. Call `load`, then `search` and `apply`, and `close` at the end."""

    def __init__(
        self,
        engine: IndexEngine,
        *,
        main: LivingMain | None = None,
        searched: Callable[[int], None] = lambda count: None,
    ) -> None:
        """main: what the engine lacks; None if that has all vectors.

        searched: called on the index's thread after each pass, with the number of searches answered.
        """
        self._engine, self._main = engine, main
        self._remote = engine if isinstance(engine, RemoteEngine) else None
        self._tending = False
        """Whether an engine in another process is tended by itself: from the first time on."""
        self._searched = searched
        self._longest = 1.0
        self._newest = 0 if main is None else main.sequence
        self._next: IndexEngine | None = None
        self._removed: list[Keys] = []
        self._count()
        self._waiting = 0
        self._jobs: queue.SimpleQueue[_Search | _Task | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="landseer-index", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def size(self) -> int:
        """Number of vectors that can be found."""
        return self._size

    @property
    def main(self) -> LivingMain | None:
        """The main index; None without one."""
        return self._main

    @property
    def added(self) -> int:
        """Number of vectors that the main index lacks."""
        return self._added

    @property
    def tombstones(self) -> int:
        """Number of vectors of the main index that were removed."""
        return self._tombstones

    def sees(self, applied: int) -> int:
        """Return the last change that searches see. applied: the last one that the index was told of."""
        return applied if self._remote is None else min(applied, self._remote.seen)

    @property
    def waits(self) -> bool:
        """Whether another process brings an engine in a third one up to date."""
        return self._remote is not None and self._remote.waits

    @property
    def refusal(self) -> LandseerError | None:
        """Why an engine in another process can never serve this collection, if that is so."""
        return None if self._remote is None else self._remote.refusal

    @property
    def waiting(self) -> int:
        """Number of searches that are not answered yet."""
        return self._waiting

    async def search(self, vector: npt.ArrayLike, k: int, selection: Selecting | None = None) -> Hits:
        """Return the k nearest to vector [D], or all if there are fewer; with a selection, only of its keys.

        The selection is asked for its keys when the search begins, so that they are as new as what is searched.

        ValueError if k < 1, or the vector has another size or is not finite. Overloaded if the queue is full.
        Cancelling the call removes it from the queue unless it has started.
        """
        query = np.array(vector, np.float32)
        size = self._engine.dimension
        if query.shape != (size,) or k < 1 or not np.isfinite(query).all():
            raise ValueError(f"got k = {k} and shape {query.shape}; expected k of 1 or more and {size} finite values")
        if self._waiting >= MOST_WAITING:
            raise Overloaded(f"{self._waiting} searches already wait for the index; try again later")
        job = _Search(query=query, k=k, selection=selection)
        self._put(job)
        self._waiting += 1
        try:
            return await asyncio.wrap_future(job.answer)
        finally:
            self._waiting -= 1

    async def apply(
        self, added_keys: Sequence[int] | Keys, vectors: npt.ArrayLike, removed_keys: Sequence[int] | Keys
    ) -> None:
        """Add vectors [n, D] under added_keys, then remove removed_keys; searches started after it returns see both.

        Values are rounded to fp16, as in the store. The change completes even if the caller is cancelled, because the
        store has already accepted it.
        """
        added, removed = np.asarray(added_keys, np.int64), np.asarray(removed_keys, np.int64)
        await self._run(lambda: self._change(added, np.asarray(vectors), removed))

    async def load(
        self,
        batches: Iterator[tuple[Keys, npt.NDArray[Any]]],
        progress: Callable[[int], None] | None = None,
        *,
        expected: int = 0,
    ) -> int:
        """Add the batches of a store's `vectors.scan` and return the number of vectors.

        `progress` is called on the event loop after each batch with the number of vectors so far. expected: how many
        there will be, about; the engine makes room for so many at once.
        """
        loop = asyncio.get_running_loop()

        def work() -> int:
            self._engine.reserve(expected)
            for keys, vectors in batches:
                self._change(keys, vectors, np.empty(0, np.int64))
                if progress is not None:
                    loop.call_soon_threadsafe(progress, self._size)
            return self._size

        return int(await self._run(work))

    async def tend(self) -> bool:
        """Bring an engine in another process up to date by a part; return whether there is more to do.

        From then on that also happens by itself, while there is nothing else to do.
        """

        def work() -> bool:
            self._tending = True
            more = self._remote is not None and self._remote.tend()
            self._count()
            return more

        return bool(await self._run(work))

    async def begin_exchange(self, engine: IndexEngine) -> int:
        """Return the largest key so far; vectors added from now on also go to the empty `engine`.

        Build a main index of all stored vectors up to that key, and call `exchange`. Calling this again starts over.
        """

        def work() -> int:
            self._next, self._removed = engine, []
            return self._newest

        return int(await self._run(work))

    async def exchange(self, main: LivingMain) -> list[IndexEngine | LivingMain | None]:
        """Search `main` and the vectors added since `begin_exchange` from now on, instead of what was there before.

        Takes no longer than removing from `main` what was removed since then. Returns what was there before, as freeing
        it takes longer: drop it on another thread. RuntimeError if no exchange has begun.
        """

        def work() -> list[IndexEngine | LivingMain | None]:
            if self._next is None:
                raise RuntimeError("no exchange has begun")
            before = [self._engine, self._main]
            main.remove(np.concatenate([np.empty(0, np.int64), *self._removed]))
            self._engine, self._main = self._next, main
            self._next, self._removed = None, []
            self._count()
            return before

        found: list[IndexEngine | LivingMain | None] = await self._run(work)
        return found

    async def abandon_exchange(self) -> None:
        """Forget an exchange that has begun; searches go on as before."""

        def work() -> None:
            self._next, self._removed = None, []

        await self._run(work)

    def close(self) -> None:
        """Answer queued jobs, then end the thread. May be called twice."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    async def _run(self, work: Callable[[], Any]) -> Any:
        task = _Task(work=work)
        self._put(task)
        return await asyncio.shield(asyncio.wrap_future(task.answer))

    def _put(self, job: _Search | _Task) -> None:
        if self._closed:
            raise RuntimeError("the index is closed; the server is shutting down")
        self._jobs.put(job)

    # Everything below runs on the worker thread.

    def _work(self) -> None:
        waiting: deque[_Search | _Task | None] = deque()
        while True:
            self._receive(waiting)
            first = waiting[0]
            if first is None:
                if self._remote is not None:
                    self._remote.close()
                return
            if isinstance(first, _Task):
                waiting.popleft()
                _run(first)
            else:
                self._answer(_take_searches(waiting))

    def _receive(self, waiting: deque[_Search | _Task | None]) -> None:
        """Move all new jobs into `waiting`; block if there are none at all."""
        pause = IDLE_S if self._tending else None
        while not waiting:
            try:
                waiting.append(self._jobs.get(timeout=pause))
            except queue.Empty:
                pause = 0.0 if self._tended() else IDLE_S
        while not self._jobs.empty():
            waiting.append(self._jobs.get_nowait())

    def _tended(self) -> bool:
        """Tend the engine; return whether there is more to do at once."""
        try:
            return self._remote is not None and self._remote.tend()
        except Exception:
            log.exception("bringing the index up to date failed; it is tried again")
            return False

    def _answer(self, batch: list[_Search]) -> None:
        if not batch:
            return
        try:
            queries, ks = np.stack([search.query for search in batch]), [search.k for search in batch]
            selecting = batch[0].selection
            found = self._nearest(queries, ks, None if selecting is None else selecting.now())
        except Exception as error:
            for search in batch:
                search.answer.set_exception(error)
        else:
            for search, hits in zip(batch, found, strict=True):
                search.answer.set_result(hits)
            with only_metrics():
                self._searched(len(batch))

    def _nearest(self, queries: Vectors, ks: Sequence[int], selection: Selection | None) -> list[Hits]:
        engine = _ranked(self._engine, queries, ks, longest=self._longest, selection=selection)
        if self._main is None:
            lacks = "" if self._remote is None else self._remote.lacks
            return [_hits(*ranked, lacks=lacks) for ranked in engine]
        main = _ranked(
            self._main,
            queries,
            ks,
            longest=self._main.longest,
            selection=selection,
            candidates=self._main.candidates,
        )
        return [_hits(*_best_of(one, other, k)) for one, other, k in zip(main, engine, ks, strict=True)]

    def _change(self, added: Keys, vectors: npt.NDArray[Any], removed: Keys) -> None:
        if len(added):
            rows = vectors.astype(np.float16).astype(np.float32)
            self._engine.add(added, rows)
            if self._next is not None:
                self._next.add(added, rows)
            self._longest = max(self._longest, largest_norm(rows))
            self._newest = max(self._newest, int(added.max()))
        if len(removed):
            self._remove(removed)
        self._count()

    def _remove(self, removed: Keys) -> None:
        self._engine.remove(removed)
        if self._main is not None:
            self._main.remove(removed)
        if self._next is not None:
            self._next.remove(removed)
            self._removed.append(removed)

    def _count(self) -> None:
        self._added = self._engine.size
        self._tombstones = 0 if self._main is None else self._main.tombstones
        self._size = self._added + (0 if self._main is None else self._main.size)


def nearest(
    engine: IndexEngine, queries: Vectors, ks: Sequence[int], *, longest: float, selection: Selection | None = None
) -> list[Hits]:
    """Return the exact hits of queries [Q, D], ks[i] hits for query i, with shared calls of the engine.

    longest: an upper bound of the norms of the engine's vectors, which bounds the rounding errors of its scores.
    """
    return [_hits(*ranked) for ranked in _ranked(engine, queries, ks, longest=longest, selection=selection)]


def _ranked(
    engine: IndexEngine | LivingMain,
    queries: Vectors,
    ks: Sequence[int],
    *,
    longest: float,
    selection: Selection | None,
    candidates: Callable[[int], int] = lambda k: k + 32 + k // 8,
) -> list[_Ranked]:
    """Do the work of `nearest`. candidates: returns how many to score, at first, for k hits."""
    found: dict[int, _Ranked] = {}
    lengths = {row: candidates(k) for row, k in enumerate(ks)}
    while lengths:
        rows, asked = list(lengths), max(lengths.values())
        keys, rough = engine.search(queries[rows], asked, selection)
        there = keys.shape[1] if keys.shape[1] < asked else engine.size
        for row, row_keys, row_rough in zip(rows, keys, rough, strict=True):
            length = min(lengths.pop(row), there)
            some = row_keys[:length] >= 0
            chosen, scores = row_keys[:length][some], row_rough[:length][some]
            more = engine.exact and length < there
            hits = _rescored(engine, queries[row], chosen, scores, k=ks[row], longest=longest, more=more)
            if hits is None:
                lengths[row] = 4 * length
            else:
                found[row] = hits
    return [found[row] for row in range(len(ks))]


def _hits(keys: Keys, scores: npt.NDArray[np.float64], *, lacks: str = "") -> Hits:
    return Hits(keys=keys, scores=scores.astype(np.float32), lacks=lacks)


def _best_of(one: _Ranked, other: _Ranked, k: int) -> _Ranked:
    """Return the best k of both."""
    keys, scores = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]


def largest_norm(rows: Vectors) -> float:
    """Return the largest norm of rows [n, D], n of 1 or more."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


def inner_products(rows: Vectors, query: Vectors) -> npt.NDArray[np.float64]:
    """Return rows [C, D] times query [D] in fp64; the order of summation does not depend on C."""
    products: npt.NDArray[np.float64] = np.einsum(
        "ij,j->i", rows.astype(np.float64, order="C"), query.astype(np.float64)
    )
    return products


def _rescored(
    engine: IndexEngine | LivingMain, query: Vectors, keys: Keys, rough: Vectors, *, k: int, longest: float, more: bool
) -> _Ranked | None:
    """Return the best k of the candidates [C]; None if a vector outside them might belong there.

    more: whether there are others, none with a higher rough score.
    """
    exact = _score(engine.vectors, keys, query) if engine.exact else scores_of_enough(engine.vectors, keys, query, k)
    keys = keys[: len(exact)]
    there = ~np.isnan(exact)
    if not there.all():
        keys, exact = keys[there], exact[there]
    if more and len(keys) < k:
        return None
    order = np.lexsort((keys, -exact))[:k]
    if more:
        # An fp32 inner product of D terms, in any order, is off by at most D * 2^-24 * |x| |q| (Higham, 2002, eq. 3.5).
        slack = 1.01 * len(query) * 2.0**-24 * longest * float(np.linalg.norm(query))
        if exact[order[-1]] <= rough[-1] + slack:
            return None
    return keys[order], exact[order]


def scores_of_enough(vectors: Stored, keys: Keys, query: Vectors, k: int) -> npt.NDArray[np.float64]:
    """Return the exact scores of the first of keys [C], best rough score first: of as many as the best k need.

    The last part of the candidates that is scored is one of which none is among the best k so far: those after it are
    less likely to be. So a search for 100 hits scores 250 of 400 (docs/scale.md); one for few hits scores all.
    """
    part = max(k // 2, len(keys) // PARTS, PART)
    scores = _score(vectors, keys if k < MANY else keys[:k], query)
    while len(scores) < len(keys):
        # Not a number: removed from the store meanwhile.
        best = np.sort(scores[~np.isnan(scores)])[-k:]
        more = _score(vectors, keys[len(scores) : len(scores) + part], query)
        scores = np.concatenate([scores, more])
        if len(best) == k and not (more > best[0]).any():
            break
    return scores


def _score(vectors: Stored, keys: Keys, query: Vectors) -> npt.NDArray[np.float64]:
    """Return the exact scores of keys [C]."""
    chunks = [keys[i : i + CHUNK] for i in range(0, len(keys), CHUNK)]
    return np.concatenate([np.empty(0), *(inner_products(vectors(chunk), query) for chunk in chunks)])


def _take_searches(waiting: deque[_Search | _Task | None]) -> list[_Search]:
    """Take the leading searches with the selection of the first, at most BATCH; cancelled ones are dropped.

    The others of them stay where they were, ahead of the next change.
    """
    batch: list[_Search] = []
    others: list[_Search] = []
    while len(batch) < BATCH and waiting:
        search = waiting[0]
        if not isinstance(search, _Search):
            break
        waiting.popleft()
        if batch and search.selection is not batch[0].selection:
            others.append(search)
        elif search.answer.set_running_or_notify_cancel():
            batch.append(search)
    waiting.extendleft(reversed(others))
    return batch


def _run(task: _Task) -> None:
    """Run a task even if its caller was cancelled: the store has already changed."""
    awaited = task.answer.set_running_or_notify_cancel()
    try:
        result = task.work()
    except Exception as error:
        if awaited:
            task.answer.set_exception(error)
    else:
        if awaited:
            task.answer.set_result(result)
