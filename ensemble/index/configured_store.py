"""Opens the store that a configuration names, for what it says is stored."""

from __future__ import annotations

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.codebooks import Codebooks
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.store.store import Store


def open_store(config: ServerConfig, profile: Profile, codebooks: Codebooks) -> Store:
    """Open the store, or create it. profile: of the models that describe pictures for it. Errors of `Store.open`."""
    return Store.open(
        config.store,
        fingerprint=profile.fingerprint,
        clusters_shape=(profile.sizes.clusters, profile.sizes.reduced),
        limit_bytes=config.store_limit_bytes,
        locals_sha256=profile.locals_sha256 if config.deep else None,
        codebook=codebooks.keypoints.fingerprint if codebooks.keypoints else None,
        patches_sha256=profile.patches_sha256 or None if config.keypoints else None,
        network=config.network_store,
    )
