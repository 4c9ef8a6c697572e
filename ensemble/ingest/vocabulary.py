"""Train a codebook from the local features of a store, in a job that can be interrupted and resumed.

After each round of k-means the centroids are written to a draft beside the file, whole or not at all. The training
features depend only on the store, the number of features and the seed, so a resumed run ends with the same words as an
uninterrupted one (with the same number of threads).
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
"""Enough for the largest codebook: 1.3 GB of 128 values each."""


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """Identifies the training features exactly."""

    store: str
    """The folder, as given."""
    sequence: int
    """Of the store's last change."""
    locals_sha256: str
    """Of the models that made the local descriptors; the words fit no others."""
    pictures: int
    """Pictures with local features."""
    most: int
    """Number of features requested."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class FeatureSample:
    """Training features."""

    source: FeatureSource
    features: Features
    """[n, D], unit norm."""


def sample(store: Store, *, name: str, most: int = MOST_FEATURES, seed: int = 0) -> FeatureSample:
    """Return about `most` local features of whole pictures, drawn by `seed`, equally many from each if it has them.

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
            f"no picture in {name} has deep local features; index pictures with "
            "`landseer serve --local-features deep` first"
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
    """Train a codebook of `words` words, or as many as the features allow, and write it to a file.

    An interrupted run resumes, and a finished run is not repeated. report: called after each round. ValueError for more
    words than features, OSError if the file cannot be written.
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
        raise ValueError(f"got {rounds} rounds; expected at least 1")
    done.save(path)
    draft_of(path).unlink(missing_ok=True)
    return done


def draft_of(path: Path) -> Path:
    """Return the path of the draft, kept until training ends."""
    return path.with_name(f"{path.name}.part")


def _reached(path: Path, job: dict[str, object]) -> Codebook | None:
    """Return the codebook that a run of the same job left in a file, if any."""
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
