"""Arrays of pictures in the cache, read one picture at a time: together they may be gigabytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from landseer.ensemble.inference.profile import Profile
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.arrays import kept_as
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.dataset import Shot


class CachedArrays:
    """The arrays of those pictures whose keys are known."""

    def __init__(self, cache: Path, profile: Profile) -> None:
        self._cache, self._profile = cache, profile
        self.keys: dict[Shot, bytes] = {}
        """What each picture is kept under."""

    def read(self, name: str, shots: Sequence[Shot]) -> Iterator[NDArray[Any]]:
        """Yield the array of this name of each picture. OpsError if it is not there."""
        kept = kept_as(name, self._profile)
        with vector_cache(self._cache, self._profile.fingerprint) as cache:
            for shot in shots:
                found = cache.get(self.keys[shot], kept)
                if found is None:
                    raise OpsError(f"{self._cache} has lost {name} of {shot.path}; run the same command again")
                yield found
