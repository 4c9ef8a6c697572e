"""Searches by words among many generated pictures, in memory, until they do not fit."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.asmk.bits import Packed
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.cores import cores
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.compact import BITS, STRONGEST, CompactKeypoints, Words, aggregated
from landseer.ensemble.keypoints.extractor import query_keypoints
from landseer.ensemble.keypoints.quantiser import Quantiser
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.pictures.pictures import prepare
from landseer.ensemble.store.store import Store
from landseer.ops.bench.page_cache import memory_bytes
from landseer.ops.errors import OpsError

KERNEL = "how-idf"
"""That of a service with keypoints."""
LEAST, MOST = 9 * STRONGEST // 10, STRONGEST
"""Keypoints of a generated picture."""
POOLED = 2000
"""Real pictures, at most, whose keypoints are drawn from: 50 MB."""
BATCH = 2000
"""Generated pictures added at a time: 30 MB."""
HITS = 100
SHARE = 0.6
"""Of the machine's memory that may be used."""
_RESET_PEAK = "5"
"""Written to clear_refs, it sets VmHWM back to the current use (proc(5))."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Keypoints of real pictures, from which those of generated ones are drawn."""

    words: Words
    """[M]."""
    codes: Packed
    """[M, 16]."""
    pictures: int
    distinct: float
    """Distinct words of a picture, the mean."""

    @classmethod
    def of(cls, pictures: Sequence[CompactKeypoints]) -> Pool:
        """Pool the keypoints of pictures. OpsError without any."""
        if not sum(map(len, pictures)):
            raise OpsError(f"{len(pictures)} pictures without a keypoint; index pictures that have some texture")
        return cls(
            words=np.concatenate([one.words[:STRONGEST] for one in pictures]),
            codes=np.concatenate([one.codes[:STRONGEST] for one in pictures]),
            pictures=len(pictures),
            distinct=float(np.mean([len(np.unique(one.words[:STRONGEST])) for one in pictures])),
        )

    def picture(self, draws: np.random.Generator) -> Binary:
        """Return a generated picture: each keypoint is one of a random real picture, with its word and bits."""
        rows = draws.integers(len(self.words), size=draws.integers(LEAST, MOST, endpoint=True))
        return aggregated(self.words[rows], self.codes[rows])


def stored_pool(folder: Path, *, seed: int) -> Pool:
    """Pool the keypoints of at most `POOLED` pictures of a store that no service uses. StoreUnusable."""
    store = Store.open(folder, fingerprint=None)
    try:
        keys = np.concatenate([np.empty(0, np.int64), *(keys for keys, _ in store.keypoints.scan())])
        chosen = np.random.default_rng(seed).permutation(keys)[:POOLED]
        found = store.keypoints.read(chosen.tolist())
    finally:
        store.close()
    return Pool.of([one for one in found if one is not None])


def query_words(paths: Sequence[Path], profile: Profile) -> list[Binary]:
    """Return the words of query pictures as a search computes them. Unreadable pictures are left out."""
    quantiser, found = Quantiser(shipped_codebook()), []
    for path in paths:
        try:
            pixels = prepare(path.read_bytes(), profile=profile).pixels
        except (InvalidInput, OSError):
            continue
        found.append(query_keypoints(quantiser, pixels).aggregated())
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledWords:
    """Searches among so many pictures, or the reason why there are none."""

    pictures: int
    """As many as were asked for, or as many as there were when memory did not suffice."""
    bytes: int
    """Of the inverted file."""
    peak: int
    """The most memory so far, beyond what was used before the first picture: merging needs more for a moment."""
    seconds: NDArray[np.float64]
    """Of each search, [n]; none if memory did not suffice."""
    first: float
    """Of the first search after a change, which computes the weights of the words, seconds; NaN without one."""
    asked: int
    """How many pictures were asked for."""

    @property
    def fits(self) -> bool:
        """Whether as many pictures as asked for fit, and could be searched."""
        return bool(len(self.seconds))


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """What grows, and what is searched for."""

    pool: Pool
    queries: Sequence[Binary]
    seed: int
    words: int
    """K, of the codebook."""


def grown(
    growth: Growth, sizes: Sequence[int], *, room: int, advance: Callable[[int], None] = lambda count: None
) -> Iterator[ScaledWords]:
    """Yield the searches at each size, ascending, and at last the size that no longer fits into `room` bytes, if any.

    advance: called with the number of pictures added.
    """
    with ThreadPoolExecutor(cores()) as threads:
        kernel = KERNELS[KERNEL]
        file = InvertedFile(words=growth.words, bits=BITS, kernel=kernel, pool=threads, threads=cores())
        file.prepare()
        draws, before = np.random.default_rng(growth.seed), _reset_peak()
        most = _data() + room
        for size in sorted(sizes):
            seconds, first = np.empty(0), float("nan")
            try:
                with limited(most):
                    _fill(file, growth.pool, size, draws, advance)
                    first, seconds = _timed(file, growth.queries)
            except MemoryError:
                pass
            peak = memory_bytes(os.getpid(), "VmHWM") - before
            yield ScaledWords(
                pictures=file.size, bytes=file.nbytes, peak=max(0, peak), seconds=seconds, first=first, asked=size
            )
            if not len(seconds):
                return


def _fill(
    file: InvertedFile, pool: Pool, size: int, draws: np.random.Generator, advance: Callable[[int], None]
) -> None:
    while (there := file.size) < size:
        count = min(BATCH, size - there)
        file.add(np.arange(there + 1, there + 1 + count), [pool.picture(draws) for _ in range(count)])
        advance(count)


def _timed(file: InvertedFile, queries: Sequence[Binary]) -> tuple[float, NDArray[np.float64]]:
    """Return the seconds of the first search, and of one search by each query after it, [n]."""
    first = _search(file, queries[0])
    return first, np.array([_search(file, query) for query in queries])


def _search(file: InvertedFile, query: Binary) -> float:
    began = time.perf_counter()
    file.search(query, HITS)
    return time.perf_counter() - began


def room_for(share: float = SHARE) -> int:
    """Return the bytes that may be used: a share of the machine's memory, and no more than is available."""
    memory = psutil.virtual_memory()
    return int(min(share * memory.total, 0.9 * memory.available))


@contextmanager
def limited(most: int) -> Iterator[None]:
    """Let this process have at most so many bytes of data: beyond, numpy raises MemoryError, and nobody is killed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    ends = [one for one in (most, soft, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(ends), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data() -> int:
    """Return the bytes of data that this process has allocated, as RLIMIT_DATA counts them."""
    return memory_bytes(os.getpid(), "VmData")


def _reset_peak() -> int:
    """Set the process's peak back to its current memory, which is returned; where that is forbidden, keep the peak."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return memory_bytes(os.getpid(), "VmHWM")
    return memory_bytes(os.getpid(), "VmRSS")
