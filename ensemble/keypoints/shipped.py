"""The codebook of keypoints that ships with Landseer."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from landseer.ensemble.asmk.codebook import Codebook

FEATURES = "rootsift"
"""What the card of a codebook for keypoints says of its `features`."""


@lru_cache(maxsize=1)
def shipped_codebook() -> Codebook:
    """Load it. docs/codebook-card.md says how it was learned."""
    with resources.as_file(resources.files("landseer.ensemble.keypoints") / "codebook.safetensors") as path:
        return Codebook.load(path)


def is_for_keypoints(codebook: Codebook) -> bool:
    """Return whether a codebook was learned on keypoints; the others are of deep local features."""
    return codebook.card.get("features") == FEATURES
