"""Opens the store that a configuration names, for what it says is stored."""

from __future__ import annotations

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.codebooks import Codebooks
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.postgres_address import PostgresAddress
from landseer.ensemble.store.postgres.postgres_store import PostgresStore
from landseer.ensemble.store.record_store import RecordStore
from landseer.ensemble.store.store import Store


def open_store(config: ServerConfig, profile: Profile, codebooks: Codebooks) -> RecordStore:
    """Open the store, or create it. profile: of the models that describe pictures for it.

    Errors of `Store.open`, or of `PostgresStore.open`.
    """
    shape = (profile.sizes.clusters, profile.sizes.reduced)
    made_by = {
        "locals": profile.locals_sha256 if config.deep else None,
        "keypoints": codebooks.keypoints.fingerprint if codebooks.keypoints else None,
        "patches": profile.patches_sha256 or None if config.keypoints else None,
    }
    if isinstance(config.store, PostgresAddress):
        return PostgresStore.open(
            config.store,
            fingerprint=profile.fingerprint,
            made_by={name: by for name, by in made_by.items() if by is not None},
            clusters_shape=shape,
            limit_bytes=config.store_limit_bytes,
            insecure=config.insecure,
        )
    return Store.open(
        config.store,
        fingerprint=profile.fingerprint,
        clusters_shape=shape,
        limit_bytes=config.store_limit_bytes,
        locals_sha256=made_by["locals"],
        codebook=made_by["keypoints"],
        patches_sha256=made_by["patches"],
        network=config.network_store,
    )
