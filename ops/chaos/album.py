"""What callers know about the index: pictures, their descriptors, and which changes were acknowledged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landseer.client.blocking import BlockingSearchClient
from landseer.client.errors import NotIndexed
from landseer.ops.chaos.pictures import pictures
from landseer.v1.index_pb2 import GetResponse

ANCHORS = 6
"""Pictures that stay in the index and are searched for."""
OTHERS = 18
NEWEST = 4
"""Of the ids that come and go, how many are never deleted, and so can be read at any time."""
SAME = 0.98
"""Least cosine of two descriptors of one picture by the same model; the store's half precision gives 0.9999."""
PATIENCE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Known:
    """A picture and what the model made of it before any fault."""

    image: bytes
    descriptor: NDArray[np.float32]


@dataclass(kw_only=True)
class Album:
    """The truth that answers are compared with. Threads may share it."""

    known: Sequence[Known]
    """The first `ANCHORS` of them are indexed as `anchor/N`."""
    stored: dict[str, int] = field(default_factory=dict)
    """Ids whose Upsert was acknowledged, with the place of the picture in `known`."""
    deleted: set[str] = field(default_factory=set)
    """Ids whose Delete was acknowledged."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: int = 0

    @classmethod
    def indexed(cls, client: BlockingSearchClient) -> Album:
        """Describe the pictures and index the anchors."""
        known = [Known(image=one, descriptor=_described(client, one)) for one in pictures(ANCHORS + OTHERS)]
        album = cls(known=known)
        album.anchor(client)
        return album

    def anchor(self, client: BlockingSearchClient) -> None:
        """Index the anchors, also where they are indexed already."""
        for place in range(ANCHORS):
            client.upsert(f"anchor/{place}", self.known[place].image, metadata={"picture": str(place)})
            self.put(f"anchor/{place}", place)

    def new(self) -> tuple[str, int]:
        """Return an id that was never used, and the place of a picture for it."""
        with self._lock:
            self._made += 1
            return f"new/{self._made}", ANCHORS + self._made % OTHERS

    def put(self, id: str, place: int) -> None:
        """Note an acknowledged Upsert."""
        with self._lock:
            self.stored[id] = place

    def oldest(self) -> str | None:
        """Take the oldest id for deletion, so that its state is unknown until the answer; None if there are few."""
        with self._lock:
            mine = [id for id in self.stored if not id.startswith("anchor/")]
            if len(mine) <= NEWEST:
                return None
            del self.stored[mine[0]]
            return mine[0]

    def delete(self, id: str) -> None:
        """Note an acknowledged Delete."""
        with self._lock:
            self.deleted.add(id)

    def readable(self, number: int) -> tuple[str, int]:
        """Return an indexed id that is not deleted soon, and the place of its picture; another one for each number."""
        with self._lock:
            every = list(self.stored.items())
        some = [*every[:ANCHORS], *every[ANCHORS:][-NEWEST:]]
        return some[number % len(some)]

    def differs(self, answer: GetResponse, place: int) -> str:
        """Return how a record differs from the picture at `place`, empty if it does not."""
        found = np.array(answer.descriptor, np.float32)
        cosine = float(found @ self.known[place].descriptor) / max(float(np.linalg.norm(found)), 1e-9)
        if answer.metadata["picture"] != str(place):
            return f"{answer.id} is picture {answer.metadata['picture']} instead of {place}"
        return "" if cosine >= SAME else f"{answer.id} has a descriptor of cosine {cosine:.3f} with its own"

    def missing(self, address: str) -> list[str]:
        """Return the acknowledged changes that the server at `address` does not have, one sentence each."""
        with BlockingSearchClient(address, timeout=30.0, patience=PATIENCE_S) as client:
            return list(self._missing(client))

    def _missing(self, client: BlockingSearchClient) -> Iterator[str]:
        for id, place in self.stored.items():
            try:
                if wrong := self.differs(client.get(id, include_vectors=True), place):
                    yield wrong
            except NotIndexed:
                yield f"{id} was acknowledged and is gone"
        for id in self.deleted:
            try:
                client.get(id)
                yield f"{id} was deleted and is back"
            except NotIndexed:
                continue
        yield from self._not_found(client)

    def _not_found(self, client: BlockingSearchClient) -> Iterator[str]:
        """Yield the stored ids that a search of everything does not find."""
        answer = client.search(self.known[0].descriptor.tolist(), top_k=1000)
        hits = {hit.id for hit in answer.hits}
        if answer.index_size <= 1000:
            yield from (f"{id} was acknowledged and no search finds it" for id in self.stored if id not in hits)
        yield from (f"{id} was deleted and is a hit" for id in self.deleted & hits)

    def tidy(self, address: str) -> None:
        """Delete all but the anchors, and forget them."""
        with BlockingSearchClient(address, timeout=30.0, patience=PATIENCE_S) as client:
            for id in [id for id in self.stored if not id.startswith("anchor/")]:
                del self.stored[id]
                with contextlib.suppress(NotIndexed):  # one that was lost
                    client.delete(id)
        self.deleted.clear()


def _described(client: BlockingSearchClient, image: bytes) -> NDArray[np.float32]:
    return np.array(client.describe(image).descriptor.values, np.float32)
