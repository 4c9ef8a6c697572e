"""Which vectors an index holds: raw, or augmented."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ensemble.store.record import StoreStats


@dataclass(frozen=True, kw_only=True)
class SearchedVectors:
    """What an index was built from, and how many pictures changed since."""

    augmentation: str = ""
    """As given to `landseer augment --method`; empty for raw vectors."""
    network: str = ""
    """SHA-256 of the network that weighted the neighbours; empty without one."""
    sequence: int = 0
    """Of the store's last change before the augmentation."""
    not_augmented: int = 0
    """Pictures added since: searched by their raw vectors, and nobody's neighbours."""
    removed: int = 0
    """Pictures deleted since: the vectors of their neighbours still contain them."""

    @property
    def warning(self) -> str:
        """A log message for when pictures changed since the augmentation."""
        return (
            f"the vectors were augmented ({self.augmentation}) at change {self.sequence}; since then "
            f"{self.not_augmented:,} pictures were added, which are searched by their raw vectors, and "
            f"{self.removed:,} were deleted; stop the server and run `landseer augment` again to include them"
        )


def searched_vectors(stats: StoreStats, *, augmented: bool) -> SearchedVectors:
    """Return what an index holds, built from the augmented or the raw vectors of a store with these figures."""
    found = stats.augmentation if augmented else None
    if found is None:
        return SearchedVectors()
    return SearchedVectors(
        augmentation=found.method,
        network=found.network,
        sequence=found.sequence,
        not_augmented=stats.pictures - stats.augmented,
        removed=found.pictures - stats.augmented,
    )
