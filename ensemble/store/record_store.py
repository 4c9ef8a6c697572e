"""What a collection asks of a store, wherever that is: a folder (`store`), or a database (`postgres`).

Index engines within the process, index versions, augmented vectors and words of deep local features need a folder, and
ask for `store.Store` itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.keypoints.compact import CompactKeypoints
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.store.listing import Page, PageQuery, Wanted
from landseer.ensemble.store.local_features import LocalFeatures
from landseer.ensemble.store.outbox import Unseen
from landseer.ensemble.store.record import Record, StoreChange, Stored, StoreStats

T = TypeVar("T")
Keys = NDArray[np.int64]


class VectorReader(Protocol):
    """Reads vectors by key; see `vectors.Vectors`."""

    def clusters(self, keys: Sequence[int]) -> tuple[NDArray[np.float16], NDArray[np.int32]]:
        """Return clusters [C, K, P], zero beyond each picture's count, and the counts [C]; 0 for a missing key."""

    def descriptors(self, keys: Sequence[int], *, augmented: bool = False) -> NDArray[np.float32]:
        """Return descriptors [C, D]; zeros for a missing key. D is 0 if all are missing."""


class MetadataReader(Protocol):
    """Reads ids and metadata; see `metadata.StoredMetadata`."""

    def sequence(self) -> int:
        """Return the number of the last change."""

    def ids(self, prefix: str = "") -> tuple[Keys, list[str]]:
        """Return the keys [n] and ids of the pictures whose ids start with a prefix, in the order of their ids."""

    def scan(self, *, batch: int = 4096, after: int = 0) -> Iterator[tuple[Keys, list[dict[str, str]]]]:
        """Yield keys [n] and the metadata of all pictures of keys above `after`, in key order."""

    def sample(self) -> list[dict[str, str]]:
        """Return the metadata of some pictures from all over the store, or of all of a few."""


class FeatureReader(Protocol[T]):
    """Reads one kind of features; see `features.StoredFeatures`."""

    def read(self, keys: Sequence[int]) -> list[T | None]:
        """Return the features of pictures by key, from one snapshot; None for those without any."""

    def scan(self, *, batch: int = 64, after: int = 0) -> Iterator[tuple[Keys, list[T]]]:
        """Yield keys [n] above `after` and the features of all pictures that have any, in key order."""


class IndexOutbox(Protocol):
    """What an index outside the process has not confirmed; see `outbox.Outbox`."""

    noted_every: int
    """Changes after which it is worth to `confirm` them."""
    patience_s: float
    """Seconds for which another process may be sending what searches here lack before they say so."""

    def position(self, token: str) -> int | None:
        """Return the last change that the index with this token has confirmed; None if it is not the store's."""

    def sequence(self) -> int:
        """Return the number of the store's last change."""

    def begin(self, token: str) -> None:
        """Note that the index with this token is the store's, and has seen nothing."""

    def confirm(self, token: str, sequence: int) -> None:
        """Note that the index has seen all changes up to `sequence`."""

    def turn(self, token: str, seen: int) -> AbstractContextManager[int | None]:
        """Keep all other processes from sending until the end. Gives the last change that the index has.

        That is None if another process is sending. seen: the last one that this process knows of.
        """

    def unseen(self, after: int, *, augmented: bool, most: int) -> Unseen:
        """Return what changed after change `after`, at most so many pictures."""


class RecordStore(Protocol):
    """An open store; see `store.Store`."""

    @property
    def vectors(self) -> VectorReader:
        """Descriptors and clusters."""

    @property
    def metadata(self) -> MetadataReader:
        """Ids and metadata."""

    @property
    def locals(self) -> FeatureReader[LocalFeatures]:
        """Deep local features."""

    @property
    def keypoints(self) -> FeatureReader[CompactKeypoints]:
        """Keypoints."""

    @property
    def patches(self) -> FeatureReader[Patches]:
        """Patches."""

    @property
    def outbox(self) -> IndexOutbox:
        """What Milvus has not seen."""

    def put_many(self, records: Sequence[Record]) -> list[StoreChange]:
        """Write records in one transaction, all or none; records with the same id are replaced."""

    def delete(self, id: str) -> StoreChange:
        """Delete a picture. NotFound."""

    def get(self, id: str) -> Stored:
        """Return a picture's record. NotFound."""

    def by_keys(
        self, keys: Sequence[int], *, thumbnails: bool = False, vectors: bool = True, augmented: bool = False
    ) -> list[Stored | None]:
        """Return the records of keys in that order, from one snapshot; None for a missing key."""

    def page(self, query: PageQuery, among: Wanted | None = None) -> Page:
        """List pictures in the order of their ids."""

    def count(self) -> int:
        """Return the number of pictures."""

    def stats(self) -> StoreStats:
        """Return the current figures of the store."""

    def close(self) -> None:
        """Close the store. May be called twice."""
