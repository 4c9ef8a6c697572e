"""Training features from a store: the deep local features of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from landseer.ensemble.asmk.codebook import FEATURES_A_WORD, MOST_WORDS
from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.ingest.vocabulary import FeatureSample, FeatureSource, share_of, some_of
from landseer.ensemble.store.store import Store

MOST_FEATURES = MOST_WORDS * FEATURES_A_WORD
"""Enough for the largest codebook: 1.3 GB of 128 values each."""


@dataclass(frozen=True, kw_only=True)
class StoreSource(FeatureSource):
    """Deep local features in a store."""

    store: str
    """The folder, as given."""
    sequence: int
    """Of the store's last change."""
    locals_sha256: str
    """Of the models that made the local descriptors; the words fit no others."""

    @property
    def card(self) -> dict[str, Any]:
        """The models whose local descriptors the words fit."""
        return {"locals_sha256": self.locals_sha256}


def sample(store: Store, *, name: str, most: int = MOST_FEATURES, seed: int = 0) -> FeatureSample:
    """Return about `most` local features of whole pictures, drawn by `seed`, equally many from each if it has them.

    LocalFeaturesMissing if no picture has any.
    """
    stats = store.stats()
    source = StoreSource(
        store=name,
        sequence=stats.sequence,
        locals_sha256=store.locals.sha256,
        pictures=stats.locals,
        most=most,
        seed=seed,
    )
    share = share_of(most, stats.locals)
    rows = [
        some_of(features.whole.descriptors, share, [seed, key])
        for keys, pictures in store.locals.scan()
        for key, features in zip(keys.tolist(), pictures, strict=True)
    ]
    if not sum(map(len, rows)):
        raise LocalFeaturesMissing(
            f"no picture in {name} has deep local features; index pictures with `landseer serve --local-features deep` "
            "first, or learn words of keypoints with --pictures DIR"
        )
    return FeatureSample(source=source, features=np.concatenate(rows))
