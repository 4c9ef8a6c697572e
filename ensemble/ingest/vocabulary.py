"""Train a codebook in a job that can be interrupted and resumed.

After each round of k-means the centroids are written to a draft beside the file, whole or not at all. The training
features depend only on their source (`store_features`, `picture_features`), so a resumed run ends with the same words
as an uninterrupted one (with the same number of threads).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from landseer.ensemble.asmk.codebook import MOST_WORDS, Codebook, Features, KMeansRound, fitting_words, refined, start


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """Identifies training features exactly. The card of a codebook has the fields as its `job`: use JSON values."""

    fitting: ClassVar[int] = MOST_WORDS
    """The most words that are learned unless a number is given."""
    usable: ClassVar[int | None] = None
    """The most words that the server can use, if there is a limit."""
    half: ClassVar[bool] = False
    """Whether the finished codebook is written in half precision."""

    pictures: int
    """Pictures with features."""
    most: int
    """Number of features requested."""
    seed: int

    @property
    def card(self) -> dict[str, Any]:
        """What the card says about the features outside the job: the server decides by it what the words fit."""
        return {}


@dataclass(frozen=True, kw_only=True)
class FeatureSample:
    """Training features."""

    source: FeatureSource
    features: Features
    """[n, D], unit norm."""


def learn(
    drawn: FeatureSample,
    path: Path,
    *,
    words: int | None = None,
    rounds: int,
    report: Callable[[KMeansRound], None] = lambda done: None,
) -> Codebook:
    """Train a codebook of `words` words, or as many as the features allow, and write it to a file.

    An interrupted run resumes, and a finished run is not repeated; more rounds start from the file, so from rounded
    centroids if it is in half precision. report: called after each round. Returns what the file holds. ValueError for
    more words than features, or than can be used; OSError if the file cannot be written.
    """
    features, source = drawn.features, drawn.source
    if words is not None and source.usable is not None and words > source.usable:
        raise ValueError(f"got {words:,} words; expected at most {source.usable:,}, which is what the store can keep")
    job = asdict(source) | {
        "words": words or fitting_words(len(features), most=source.fitting),
        "features": len(features),
    }
    done = _reached(path, job) or _reached(draft_of(path), job)
    centroids = done.centroids if done else start(features, job["words"], seed=source.seed)
    reached = int(done.card["rounds"]) if done else 0
    if done is None or reached < rounds:
        for one in refined(features, centroids, rounds=rounds, after=reached, seed=source.seed):
            card = source.card | {"rounds": one.number, "error": one.error, "job": job}
            done = Codebook(centroids=one.centroids, card=card)
            done.save(draft_of(path))
            report(one)
    if done is None:
        raise ValueError(f"got {rounds} rounds; expected at least 1")
    done.save(path, half=source.half)
    draft_of(path).unlink(missing_ok=True)
    return Codebook.load(path)


def draft_of(path: Path) -> Path:
    """Return the path of the draft, kept until training ends."""
    return path.with_name(f"{path.name}.part")


def share_of(most: int, pictures: int) -> int:
    """Return how many features to draw from each of `pictures` pictures for at least `most` in all."""
    return -(-most // max(pictures, 1))


def some_of(rows: Features, count: int, seed: list[int]) -> Features:
    """Return `count` of the rows [n, D] in their order, drawn by `seed`; all of them if there are fewer."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]


def _reached(path: Path, job: dict[str, object]) -> Codebook | None:
    """Return the codebook that a run of the same job left in a file, if any."""
    try:
        found = Codebook.load(path)
    except (OSError, ValueError):
        return None
    return found if found.card.get("job") == job else None
