"""A recorded history: callers put, get, delete and search for a few keys, and note when each call began and ended."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from landseer.ops.chaos.register import Operation, Value, is_linearisable, stale_reads
from landseer.v1 import index_pb2, index_pb2_grpc, search_pb2, search_pb2_grpc

KEYS = 4
TIMEOUT_S = 4.0
PAUSE_S = 0.05
LATE_S = 10.0
"""How long after its caller gave up a change can still happen: the server may hang in between."""
AFTER_FAILURE_S = 0.5
_REFUSALS = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
"""The codes with which the server promises that nothing was changed."""
_VALUE = "value"
_STATUS = "grpc-status-details-bin"
"""Metadata that the server itself sends with every error."""
_OPTIONS = (
    # A call that gRPC repeats by itself may happen twice, and is no longer one operation.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a history shows."""

    operations: int
    unknown: int
    """Calls without an answer."""
    faults: Sequence[str]
    """One sentence for each key whose history is impossible, and for each search that it refutes."""


@dataclass(kw_only=True)
class History:
    """Operations by key. Threads may share it."""

    calls: defaultdict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    """Puts, deletions and Gets."""
    searches: defaultdict[str, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    _values: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_value(self) -> int:
        """Return a value that no other operation writes."""
        with self._lock:
            self._values += 1
            return self._values

    def verdict(self) -> Verdict:
        """Check every key."""
        every = [one for calls in (*self.calls.values(), *self.searches.values()) for one in calls]
        faults = [f"no order explains the calls to {key}" for key in self.calls if not is_linearisable(self.calls[key])]
        for key, reads in self.searches.items():
            changes = [one for one in self.calls[key] if one.kind != "read"]
            faults += [
                f"a search from {read.began:.3f} to {read.ended:.3f} found {read.value} for {key}"
                for read in stale_reads(changes, reads)
            ]
        return Verdict(operations=len(every), unknown=sum(not one.answered for one in every), faults=faults)


class Recorder:
    """Threads that work on the keys `key/N` of one orchestrator, while its block runs."""

    def __init__(self, address: str, images: Sequence[bytes], *, threads: int = 4, seed: int = 0) -> None:
        self.history = History()
        self._images = images
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._index = index_pb2_grpc.IndexServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._search = search_pb2_grpc.SearchServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(seed + number),), daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> History:
        for thread in self._threads:
            thread.start()
        return self.history

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    def _work(self, draws: random.Random) -> None:
        works = (self._put, self._get, self._get, self._delete, self._searched)
        while not self._over.wait(draws.uniform(0, PAUSE_S)):
            draws.choice(works)(f"key/{draws.randrange(KEYS)}", draws)

    def _put(self, key: str, draws: random.Random) -> None:
        value = self.history.next_value()
        picture = index_pb2.Picture(id=key, image=draws.choice(self._images), metadata={_VALUE: str(value)})
        began = time.monotonic()
        try:
            self._index.Upsert(index_pb2.UpsertRequest(picture=picture), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            self._failed(key, Operation(kind="write", value=value, began=began, ended=_late(), answered=False), error)
            return
        self.history.calls[key].append(Operation(kind="write", value=value, began=began, ended=time.monotonic()))

    def _delete(self, key: str, draws: random.Random) -> None:
        began, found = time.monotonic(), True
        try:
            self._index.Delete(index_pb2.DeleteRequest(id=key), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                self._failed(key, Operation(kind="delete", began=began, ended=_late(), answered=False), error)
                return
            found = False
        self.history.calls[key].append(Operation(kind="delete", began=began, ended=time.monotonic(), found=found))

    def _failed(self, key: str, change: Operation, error: grpc.RpcError) -> None:
        """Note a change that may have happened in spite of its error, and give the server a moment."""
        if not _refused(error):
            self.history.calls[key].append(change)
        self._over.wait(AFTER_FAILURE_S)

    def _get(self, key: str, draws: random.Random) -> None:
        began, value = time.monotonic(), None
        try:
            answer = self._index.Get(index_pb2.GetRequest(id=key), timeout=TIMEOUT_S)
            value = _value(answer.metadata)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                return
        self.history.calls[key].append(Operation(kind="read", value=value, began=began, ended=time.monotonic()))

    def _searched(self, _: str, draws: random.Random) -> None:
        """Search for everything, which reads all keys."""
        began = time.monotonic()
        request = search_pb2.SearchRequest(id="anchor/0", top_k=1000)
        try:
            answer = self._search.Search(request, timeout=TIMEOUT_S)
        except grpc.RpcError:
            return
        ended, found = time.monotonic(), {hit.id: _value(hit.metadata) for hit in answer.hits if _VALUE in hit.metadata}
        for key in (f"key/{number}" for number in range(KEYS)):
            self.history.searches[key].append(Operation(kind="read", value=found.get(key), began=began, ended=ended))


def _late() -> float:
    return time.monotonic() + LATE_S


def _refused(error: grpc.RpcError) -> bool:
    """Return whether a call was never sent, or the server says that it changed nothing."""
    metadata: Any = error.trailing_metadata() or ()
    text, answered = error.details() or "", _STATUS in dict(metadata)
    # A picture that is stored and not indexed yet is an error, too.
    refused = answered and error.code() in _REFUSALS and "is stored" not in text
    return refused or "failed to connect" in text.lower()


def _value(metadata: Mapping[str, str]) -> Value:
    return int(metadata[_VALUE])
