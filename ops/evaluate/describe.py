"""Descriptors of many pictures, in process, by the very graph that is served."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.pictures import Limits, prepare
from landseer.ensemble.profile import Profile
from landseer.ops.evaluate.cache import VectorCache
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.inprocess import Graph

AHEAD = 8
"""Pictures that are decoded while the graph runs."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """What became of the pictures."""

    vectors: dict[Shot, NDArray[np.float32]]
    """float32 [D], unit norm."""
    unreadable: dict[Path, str]
    """Why, by file."""


@dataclass(frozen=True, kw_only=True)
class _Ready:
    shot: Shot
    data: bytes
    vector: NDArray[np.float32] | None
    pixels: NDArray[np.uint8] | None
    fault: str = ""


def describe_all(
    shots: Sequence[Shot], graph: Graph, profile: Profile, cache: VectorCache, *, progress: Callable[[], None]
) -> Described:
    """Describe pictures, those that the cache has not. `progress` is called after each."""
    vectors: dict[Shot, NDArray[np.float32]] = {}
    unreadable: dict[Path, str] = {}
    for ready in _prepared(shots, profile, cache):
        if ready.fault:
            unreadable[ready.shot.path] = ready.fault
        elif ready.vector is not None:
            vectors[ready.shot] = ready.vector
        elif ready.pixels is not None:
            vectors[ready.shot] = graph.describe(ready.pixels)
            cache.put(ready.shot, ready.data, vectors[ready.shot])
        progress()
    return Described(vectors=vectors, unreadable=unreadable)


def _prepared(shots: Sequence[Shot], profile: Profile, cache: VectorCache) -> Iterator[_Ready]:
    """Yield pictures in order, read and decoded ahead of the graph by one thread; the cache is asked here."""
    waiting: deque[Future[_Ready]] = deque()
    left = iter(shots)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoder:

        def add(count: int) -> None:
            for shot in itertools.islice(left, count):
                waiting.append(_start(shot, profile, cache, decoder))

        add(AHEAD)
        while waiting:
            yield waiting.popleft().result()
            add(1)


def _start(shot: Shot, profile: Profile, cache: VectorCache, decoder: ThreadPoolExecutor) -> Future[_Ready]:
    try:
        data = shot.path.read_bytes()
    except OSError as error:
        return _done(_Ready(shot=shot, data=b"", vector=None, pixels=None, fault=str(error.strerror)))
    known = cache.get(shot, data)
    if known is not None:
        return _done(_Ready(shot=shot, data=data, vector=known, pixels=None))
    return decoder.submit(_decoded, shot, data, profile)


def _decoded(shot: Shot, data: bytes, profile: Profile) -> _Ready:
    limits = Limits(max_bytes=max(len(data), 1))
    try:
        pixels = prepare(data, profile=profile, limits=limits, region=shot.region).pixels[None]
    except InvalidInput as error:
        return _Ready(shot=shot, data=data, vector=None, pixels=None, fault=error.description)
    return _Ready(shot=shot, data=data, vector=None, pixels=pixels)


def _done(ready: _Ready) -> Future[_Ready]:
    future: Future[_Ready] = Future()
    future.set_result(ready)
    return future
