"""Training features from picture files: RootSIFT keypoints, found as the server finds them. No model is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landseer.ensemble.asmk.codebook import Features
from landseer.ensemble.errors import InvalidInput, LocalFeaturesMissing
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.ingest.vocabulary import FeatureSample, FeatureSource, share_of, some_of
from landseer.ensemble.keypoints.rootsift import DIMENSION, extract
from landseer.ensemble.keypoints.shipped import FEATURES
from landseer.ensemble.pictures.pictures import prepare

WORDS = 16_384
"""Words that are learned unless a number is given, or fewer if there are few keypoints; as many as ship."""
MOST_FEATURES = WORDS * 64
"""0.5 GB. More than 39 a word, as many pictures have fewer keypoints than their share."""
PROFILE = Profile(backbone="none", weights_sha256="", sizes=Sizes(channels=DIMENSION))
"""How pictures are prepared: as for a server, whose models all have the same defaults."""


@dataclass(frozen=True, kw_only=True)
class PictureSource(FeatureSource):
    """Keypoints of picture files."""

    fitting = WORDS
    usable = 2**16  # The store keeps a keypoint's word in two bytes.
    half = True

    folders: str
    """As given, separated by commas."""
    pictures_sha256: str
    """Of the SHA-256 of the pictures' files, in order."""

    @property
    def card(self) -> dict[str, Any]:
        """That the words are of keypoints."""
        return {"features": FEATURES}


def sample_pictures(
    files: Sequence[Path],
    *,
    folders: str,
    most: int = MOST_FEATURES,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
    skip: Callable[[Path, str], None] = lambda file, why: None,
) -> FeatureSample:
    """Return about `most` keypoints of pictures, drawn by `seed`, equally many from each if it has them.

    report: called with the number of files that are done. skip: called with each file that is no readable picture, and
    why. LocalFeaturesMissing if none has keypoints.
    """
    share, contents = share_of(most, len(files)), hashlib.sha256()
    rows: list[Features] = []
    for place, file in enumerate(files):
        try:
            data = file.read_bytes()
            found = extract(prepare(data, profile=PROFILE).pixels).descriptors
        except (OSError, InvalidInput) as error:
            skip(file, error.description if isinstance(error, InvalidInput) else error.strerror or str(error))
        else:
            contents.update(hashlib.sha256(data).digest())
            rows.append(some_of(found, share, [seed, place]))
        report(place + 1)
    if not sum(map(len, rows)):
        raise LocalFeaturesMissing(
            f"no keypoints in {folders}: of {len(files):,} pictures {len(files) - len(rows):,} cannot be read, and "
            f"{len(rows):,} are blank; name folders with other pictures"
        )
    source = PictureSource(
        folders=folders, pictures_sha256=contents.hexdigest(), pictures=len(rows), most=most, seed=seed
    )
    return FeatureSample(source=source, features=np.concatenate(rows))
