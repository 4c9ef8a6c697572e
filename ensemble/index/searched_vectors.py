"""Which vectors of the pictures an index holds: the raw ones, or those of an augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.ensemble.store.record import StoreStats


@dataclass(frozen=True, kw_only=True)
class SearchedVectors:
    """What an index was built from, beside pictures that came and went since."""

    augmentation: str = ""
    """As `landseer augment --method` names it; empty for the raw vectors."""
    network: str = ""
    """SHA-256 of the network that weighed the neighbours; empty without one."""
    sequence: int = 0
    """Of the store's last change when the augmentation was computed."""
    not_augmented: int = 0
    """Pictures that came since: they are searched by their raw vectors, and are in no other's neighbourhood."""
    removed: int = 0
    """Pictures that went since: the vectors of their neighbours still hold their share."""

    @property
    def warning(self) -> str:
        """What an operator should know when pictures came or went since."""
        return (
            f"the vectors were augmented ({self.augmentation}) at change {self.sequence}; {self.not_augmented:,} "
            f"pictures came since and are searched by their raw vectors, {self.removed:,} went; "
            "stop the server and run `landseer augment` again to take them in"
        )


def searched_vectors(stats: StoreStats, *, augmented: bool) -> SearchedVectors:
    """Return what an index of the store holds that was told to take the augmented vectors, or the raw ones."""
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
