"""The codebooks of a server: of keypoints, of deep local features, or both."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ensemble.asmk.codebook import Codebook
from landseer.ensemble.config import BOTH, DEEP, KEYPOINTS, ServerConfig
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.shipped import is_for_keypoints, shipped_codebook


@dataclass(frozen=True, kw_only=True)
class Codebooks:
    """The codebooks in use."""

    keypoints: Codebook | None = None
    """None if keypoints are not stored."""
    deep: Codebook | None = None
    """None unless searches by words use deep local features."""


@dataclass(frozen=True, kw_only=True)
class LocalSources:
    """Which local features a server has: `KEYPOINTS` or `DEEP`; None without any."""

    words: str | None = None
    """Those that visual words are made of."""
    verification: str | None = None
    """Those that spatial verification compares."""
    patches: bool = False
    """Whether it compares patches, too."""


def local_sources(config: ServerConfig, codebooks: Codebooks, profile: Profile) -> LocalSources:
    """Return which local features a server uses for what; keypoints come first."""
    return LocalSources(
        words=DEEP if codebooks.deep else KEYPOINTS if codebooks.keypoints else None,
        verification=KEYPOINTS if config.keypoints else DEEP if config.deep else None,
        patches=config.keypoints and bool(profile.patches_sha256),
    )


def codebooks_of(config: ServerConfig) -> Codebooks:
    """Load the codebooks. Keypoints have the one that ships, unless `--codebook` names one for them.

    ValueError for an invalid file, or one for local features that the server does not store; OSError.
    """
    given = None if config.codebook is None else Codebook.load(config.codebook)
    for_keypoints = given is not None and is_for_keypoints(given)
    if given is not None and for_keypoints and not config.keypoints:
        raise ValueError(_unfit(config, "keypoints", KEYPOINTS))
    if given is not None and not for_keypoints and not config.deep:
        raise ValueError(_unfit(config, "deep local features", DEEP))
    shipped = shipped_codebook() if config.keypoints and not for_keypoints else None
    return Codebooks(keypoints=given if for_keypoints else shipped, deep=None if for_keypoints else given)


def _unfit(config: ServerConfig, learned: str, needed: str) -> str:
    return (
        f"the codebook {config.codebook} was learned on {learned}, and local-features is {config.local_features}; "
        f"start with --local-features {needed} or {BOTH}, or without --codebook"
    )
