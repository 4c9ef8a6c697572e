"""Learns visual words from the local features of a store: a job that can be killed after any round and run again.

After each round of k-means the centroids are written to a draft beside the file, whole or not at all. What the words
are learned from follows from the store, the number of features and the seed alone, so a run that goes on from a draft
ends with the same words as one that was never stopped (on as many threads).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from landseer.ensemble.asmk.codebook import (
    FEATURES_A_WORD,
    MOST_WORDS,
    Codebook,
    Features,
    KMeansRound,
    fitting_words,
    refined,
    start,
)
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.store import Store

MOST_FEATURES = MOST_WORDS * FEATURES_A_WORD
"""As many as the largest codebook needs: 1.3 GB of 128 values."""


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """What words are learned from: with the seed it says which features."""

    store: str
    """The folder, as it was named."""
    sequence: int
    """Of the store's last change."""
    locals_sha256: str
    """Of what made the local descriptors; the words are of use for no others."""
    pictures: int
    """How many have local features."""
    most: int
    """Features that were asked for."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class FeatureSample:
    """Features to learn from."""

    source: FeatureSource
    features: Features
    """[n, D], unit norm."""


def sample(store: Store, *, name: str, most: int = MOST_FEATURES, seed: int = 0) -> FeatureSample:
    """Return about `most` local features of whole pictures, as many of each that has so many, drawn by `seed`.

    LocalFeaturesMissing if no picture has any.
    """
    stats = store.stats()
    source = FeatureSource(
        store=name,
        sequence=stats.sequence,
        locals_sha256=store.locals.sha256,
        pictures=stats.locals,
        most=most,
        seed=seed,
    )
    share = -(-most // max(stats.locals, 1))
    rows = [
        _drawn(features.whole, share, [seed, key])
        for keys, pictures in store.locals.scan()
        for key, features in zip(keys.tolist(), pictures, strict=True)
    ]
    if not sum(map(len, rows)):
        raise LocalFeaturesMissing(
            f"no picture in {name} has local features; index pictures with `landseer serve --local-features` first"
        )
    return FeatureSample(source=source, features=np.concatenate(rows))


def learn(
    drawn: FeatureSample,
    path: Path,
    *,
    words: int | None = None,
    rounds: int,
    report: Callable[[KMeansRound], None] = lambda done: None,
) -> Codebook:
    """Learn `words` words, or as many as the features allow, in so many rounds, and write them to a file.

    A run that was stopped goes on where it was, and one that is done is not done again. report: called after each
    round. ValueError for more words than features, OSError if the file cannot be written.
    """
    features, source = drawn.features, drawn.source
    job = asdict(source) | {"words": words or fitting_words(len(features)), "features": len(features)}
    done = _reached(path, job) or _reached(draft_of(path), job)
    centroids = done.centroids if done else start(features, job["words"], seed=source.seed)
    reached = int(done.card["rounds"]) if done else 0
    if done is None or reached < rounds:
        for one in refined(features, centroids, rounds=rounds, after=reached, seed=source.seed):
            card = {"locals_sha256": source.locals_sha256, "rounds": one.number, "error": one.error, "job": job}
            done = Codebook(centroids=one.centroids, card=card)
            done.save(draft_of(path))
            report(one)
    if done is None:
        raise ValueError(f"got {rounds} rounds; expected 1 or more")
    done.save(path)
    draft_of(path).unlink(missing_ok=True)
    return done


def draft_of(path: Path) -> Path:
    """Return where the words lie until they are learned."""
    return path.with_name(f"{path.name}.part")


def _reached(path: Path, job: dict[str, object]) -> Codebook | None:
    """Return what a run of the same job left in a file, if there is one."""
    try:
        found = Codebook.load(path)
    except (OSError, ValueError):
        return None
    return found if found.card.get("job") == job else None


def _drawn(features: LocalFeatures, count: int, seed: list[int]) -> Features:
    rows = features.descriptors
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]
