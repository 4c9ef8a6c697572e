"""Descriptors of many pictures, in process, by the graphs that are served."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import Prepared, prepare
from landseer.ops.backend.inprocess import InProcessBackbone
from landseer.ops.evaluate.cache import VectorCache
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.turning import shown

AHEAD = 8
"""Pictures decoded ahead while the graph runs."""
DESCRIPTOR = "descriptor"
Arrays = Mapping[str, NDArray[Any]]
Describe = Callable[[Prepared], Arrays]
"""From a picture to its arrays, by name."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """The descriptors of pictures, and the pictures that failed."""

    vectors: dict[Shot, NDArray[np.float32]]
    """float32 [D], unit norm."""
    unreadable: dict[Path, str]
    """The reason, by file."""
    keys: dict[Shot, bytes] = field(default_factory=dict)
    """The key of each picture in the cache, for its other arrays: they may take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class _Ready:
    shot: Shot
    key: bytes = b""
    prepared: Prepared | None = None
    """None if the cache has everything."""
    fault: str = ""


def describe_all(
    shots: Sequence[Shot],
    graph: InProcessBackbone,
    profile: Profile,
    cache: VectorCache,
    *,
    progress: Callable[[], None],
) -> Described:
    """Compute the descriptors that the cache lacks. `progress` is called after each picture."""

    def describe(prepared: Prepared) -> Arrays:
        return {DESCRIPTOR: graph.describe(prepared.pixels[None])}

    return describe_by((DESCRIPTOR,), shots, lambda: describe, profile, cache, progress=progress)


def describe_by(
    names: Sequence[str],
    shots: Sequence[Shot],
    load: Callable[[], Describe],
    profile: Profile,
    cache: VectorCache,
    *,
    progress: Callable[[], None],
) -> Described:
    """Compute the arrays of these names; a picture that lacks any of them in the cache gets all of them.

    load: called once, before the first picture that is not in the cache. `progress` is called after each picture.
    """
    found = Described(vectors={}, unreadable={})
    describe: Describe | None = None
    for ready in _prepared(shots, partial(_start, frozenset(names), profile, cache)):
        if ready.fault:
            found.unreadable[ready.shot.path] = ready.fault
            progress()
            continue
        if ready.prepared is not None:
            describe = describe or load()
            cache.put(ready.key, describe(ready.prepared))
        found.keys[ready.shot] = ready.key
        vector = cache.get(ready.key, DESCRIPTOR) if DESCRIPTOR in names else None
        if vector is not None:
            found.vectors[ready.shot] = vector
        progress()
    return found


_Start = Callable[[Shot, ThreadPoolExecutor], "Future[_Ready]"]


def _prepared(shots: Sequence[Shot], start: _Start) -> Iterator[_Ready]:
    """Yield pictures in order. One thread decodes ahead of the graph; the cache is read in the calling thread."""
    waiting: deque[Future[_Ready]] = deque()
    left = iter(shots)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as decoder:

        def add(count: int) -> None:
            for shot in itertools.islice(left, count):
                waiting.append(start(shot, decoder))

        add(AHEAD)
        while waiting:
            yield waiting.popleft().result()
            add(1)


def _start(
    names: frozenset[str], profile: Profile, cache: VectorCache, shot: Shot, decoder: ThreadPoolExecutor
) -> Future[_Ready]:
    try:
        data = shot.path.read_bytes()
    except OSError as error:
        return _done(_Ready(shot=shot, fault=str(error.strerror)))
    key = cache.key(shot, data)
    if names <= cache.names(key):
        return _done(_Ready(shot=shot, key=key))
    return decoder.submit(_decoded, shot, key, data, profile)


def _decoded(shot: Shot, key: bytes, data: bytes, profile: Profile) -> _Ready:
    try:
        # A file of the user's own may be of any size, and become larger when it is turned.
        data, region = shown(shot, data, Limits(max_bytes=max(len(data), 1)))
        prepared = prepare(data, profile=profile, limits=Limits(max_bytes=max(len(data), 1)), region=region)
    except InvalidInput as error:
        return _Ready(shot=shot, fault=error.description)
    return _Ready(shot=shot, key=key, prepared=prepared)


def _done(ready: _Ready) -> Future[_Ready]:
    future: Future[_Ready] = Future()
    future.set_result(ready)
    return future
