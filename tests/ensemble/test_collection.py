"""What the collection adds to the store it reads from."""

from __future__ import annotations

import numpy as np
import pytest
from records import plain_record, unit_halves

from landseer.ensemble.collection import LANES, LEAST_OF_LANE, Collection
from landseer.ensemble.config import ServerConfig
from landseer.ensemble.contracts import Sizes
from landseer.ensemble.metrics import Metrics
from landseer.ensemble.profile import Profile
from landseer.ensemble.record import Record

COUNT = LANES * LEAST_OF_LANE + 5


def record(number: int, profile: Profile) -> Record:
    sizes = profile.sizes
    return plain_record(
        str(number),
        reduced=sizes.reduced,
        descriptor=unit_halves(sizes.channels, seed=number),
        clusters=unit_halves(number % sizes.clusters + 1, sizes.reduced, seed=number),
    )


@pytest.mark.parametrize("count", [0, 1, LEAST_OF_LANE, 2 * LEAST_OF_LANE + 1, COUNT])
async def test_clusters_read_in_lanes_are_those_of_the_store(config: ServerConfig, count: int) -> None:
    profile = Profile(backbone="b", weights_sha256="w", sizes=Sizes(channels=64))
    collection = await Collection.open(config, profile, Metrics())
    try:
        changes = collection.store.put_many([record(number, profile) for number in range(COUNT)])
        gone = changes[3].key
        collection.store.delete("3")
        keys = np.random.default_rng(count).permutation([change.key for change in changes])[:count]
        vectors, counts = await collection.clusters(keys)
        expected, of_each = collection.store.vectors.clusters(keys.tolist())
    finally:
        collection.close()
    assert vectors.dtype == np.float16 and counts.dtype == np.int32
    assert np.array_equal(vectors, expected) and np.array_equal(counts, of_each)
    assert (counts[keys == gone] == 0).all()
