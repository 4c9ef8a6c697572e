"""Callers who search, index, read and delete all the time, and compare every answer with what they know."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from landseer.client.blocking import BlockingSearchClient
from landseer.client.errors import LandseerClientError, NotIndexed
from landseer.ops.chaos.album import ANCHORS, SAME, Album
from landseer.ops.chaos.calls import OK, Calls
from landseer.v1.search_pb2 import EXPANSION_METHOD_LATTQE, Expansion, SearchResponse

TIMEOUT_S = 4.0
PAUSE_S = 0.1
KINDS = ("search", "put", "get")
DELETE_EVERY = 5
_LATTQE = Expansion(method=EXPANSION_METHOD_LATTQE, neighbours=3, allow_untrained=True)


class Callers:
    """Three threads with the project's client: one searches by picture, one indexes and deletes, one reads by id."""

    def __init__(self, address: str, album: Album, *, writers: int = 1) -> None:
        self.calls = Calls()
        self._address, self._album = address, album
        self._over = threading.Event()
        works = [self._search, self._get, *[self._write] * writers]
        self._threads = [threading.Thread(target=self._repeat, args=(work,), daemon=True) for work in works]

    def __enter__(self) -> Callers:
        self._client = BlockingSearchClient(self._address, timeout=TIMEOUT_S)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait_well(self, *, since: float, times: int, timeout_s: float) -> bool:
        """Wait until each kind of call succeeded `times` times in a row since then; return whether it did."""
        until = time.monotonic() + timeout_s
        while not all(self._well(kind, since, times) for kind in KINDS):
            if time.monotonic() > until:
                return False
            time.sleep(PAUSE_S)
        return True

    def _well(self, kind: str, since: float, times: int) -> bool:
        last = [call.outcome for call in self.calls.since(since) if call.kind == kind][-times:]
        return len(last) == times and set(last) == {OK}

    def _repeat(self, work: Callable[[int], None]) -> None:
        for number in itertools.count():
            if self._over.wait(PAUSE_S):
                return
            try:
                work(number)
            except LandseerClientError:
                continue

    def _search(self, number: int) -> None:
        place = number % ANCHORS
        image = self._album.known[place].image
        with self.calls.note("search"):
            # In turns the default search, and one by the stages that it leaves out.
            if number % 2:
                answer = self._client.search(image, top_k=5, expansion=_LATTQE, reranking="coattention")
            else:
                answer = self._client.search(image, top_k=5)
        self.calls.degraded.update(one.stage for one in answer.degradations)
        self.calls.wrong += _wrong(answer, f"anchor/{place}", first=not number % 2)

    def _get(self, number: int) -> None:
        id, place = self._album.readable(number)
        try:
            with self.calls.note("get"):
                answer = self._client.get(id, include_vectors=True)
        except NotIndexed:
            self.calls.wrong.append(f"{id} was acknowledged, and Get says that it is not indexed")
            raise
        if wrong := self._album.differs(answer, place):
            self.calls.wrong.append(wrong)

    def _write(self, number: int) -> None:
        if number % DELETE_EVERY == DELETE_EVERY - 1:
            self._delete()
            return
        id, place = self._album.new()
        with self.calls.note("put"):
            self._client.upsert(id, self._album.known[place].image, metadata={"picture": str(place)})
        self._album.put(id, place)

    def _delete(self) -> None:
        id = self._album.oldest()
        if id is not None:
            with self.calls.note("delete"):
                self._client.delete(id)
            self._album.delete(id)


def _wrong(answer: SearchResponse, id: str, *, first: bool) -> list[str]:
    """Return what is wrong with the hits for an indexed picture. first: whether it must be the first of them."""
    if answer.degradations:
        first = False
    places = {hit.id: place for place, hit in enumerate(answer.hits)}
    if id not in places or (first and places[id]):
        return [f"a search for {id} found {', '.join(places) or 'nothing'}"]
    cosine = float(getattr(answer.hits[places[id]].scores, "global"))
    return [] if cosine >= SAME else [f"{id} had a cosine of {cosine:.3f} with itself"]
