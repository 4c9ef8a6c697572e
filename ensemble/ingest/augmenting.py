"""Augment a whole store, in a job that can be killed at any time, resumed, and gives the same bytes.

Each block of vectors is one transaction. Blocks depend only on the store, vectors are computed from raw vectors only,
and neighbours are chosen by scores that do not depend on batches (`live_index`), so it does not matter where a run was
interrupted. How long it takes: docs/expansion.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from landseer.ensemble.index.engines import ENGINES, IndexEngine, Keys
from landseer.ensemble.index.live_index import largest_norm
from landseer.ensemble.search.expansion.augmentation import BLOCK, Attention, Augmenter
from landseer.ensemble.search.expansion.recipe import Recipe
from landseer.ensemble.store.record import Augmentation
from landseer.ensemble.store.store import Store


def augment_store(
    store: Store,
    recipe: Recipe,
    *,
    attention: Attention | None = None,
    network: str = "",
    threads: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Augmentation:
    """Write the augmented vectors of all pictures beside the raw ones; resume if a run was interrupted.

    attention, network: for lattqe, its similarities and the SHA-256 of its weights. threads: of the search, 0 for all
    cores. progress: called with the number of vectors done, first with those of an interrupted run. StoreFull if there
    is no room: the same call then resumes, as after a kill. ValueError for lattqe without attention.
    """
    job = store.augmented.begin(str(recipe), network=network)
    progress(job.done)
    if job.done < job.augmentation.pictures:
        engine, longest = _loaded(store, threads)
        augmenter = Augmenter(engine=engine, recipe=recipe, attention=attention, longest=longest)
        done = job.done
        for keys in _blocks(store, after=job.after):
            store.augmented.put(job, keys, augmenter.rows(keys).astype(np.float16))
            done += len(keys)
            progress(done)
    return store.augmented.finish(job)


def _loaded(store: Store, threads: int) -> tuple[IndexEngine, float]:
    """Return an engine with all raw vectors, and an upper bound of their norms."""
    engine: IndexEngine | None = None
    longest = 1.0
    for keys, vectors in store.vectors.scan():
        engine = engine or ENGINES["faiss-exact"](vectors.shape[1], threads=threads)
        rows = vectors.astype(np.float32)
        engine.add(keys, rows)
        longest = max(longest, largest_norm(rows))
    return engine or ENGINES["faiss-exact"](1), longest


def _blocks(store: Store, *, after: int) -> Iterator[Keys]:
    for keys, _ in store.vectors.scan(batch=BLOCK, after=after):
        yield keys
