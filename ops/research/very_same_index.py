"""Indexing, timed: a library as a whole, and with keypoints against without, in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.client.client import SearchClient
from landseer.client.picture_files import PictureFile, picture_id
from landseer.client.uploads import Upload, UploadPlan, UploadTally
from landseer.ops.bench.statistics import turns
from landseer.ops.errors import OpsError

UPLOAD = UploadPlan()


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an upload did."""

    pictures: int
    seconds: float
    unreadable: Mapping[Path, str]

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return self.pictures / self.seconds


def index(address: str, paths: Sequence[Path], on_done: Callable[[int], None] = lambda count: None) -> Indexed:
    """Upload pictures as `landseer index` does. LandseerClientError; OpsError if none can be indexed.

    on_done: called with the number of pictures that are done.
    """
    pictures = [PictureFile(id=picture_id(path), path=path) for path in paths]
    tally = UploadTally(total=len(pictures))

    async def upload() -> None:
        async with SearchClient(address) as client:
            await Upload(
                client, UPLOAD, tally, on_progress=lambda: on_done(tally.done), on_trouble=lambda why: None
            ).run(pictures)

    began = time.perf_counter()
    asyncio.run(upload())
    seconds = time.perf_counter() - began
    if not tally.indexed:
        why = tally.failures[0].message if tally.failures else "there are none"
        raise OpsError(f"none of {len(pictures):,} pictures could be indexed: {why}")
    bad = {failure.picture.path: failure.message for failure in tally.failures}
    return Indexed(pictures=tally.indexed, seconds=seconds, unreadable=bad)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Pictures per second by round, [n] each: both services got the same pictures, one right after the other."""

    chunk: int
    """Pictures of a turn."""
    keypoints: NDArray[np.float64]
    none: NDArray[np.float64]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """With keypoints against without, [n]."""
        return self.keypoints / self.none


def compared(
    addresses: tuple[str, str], chunks: Sequence[Sequence[Path]], advance: Callable[[], None] = lambda: None
) -> Rates:
    """Let two services, with keypoints and without, index the same chunks in turns; the first chunk only warms up."""
    rates: dict[str, list[float]] = {address: [] for address in addresses}
    for order, chunk in zip(turns(addresses, len(chunks)), chunks, strict=True):
        for address in order:
            rates[address].append(index(address, chunk).rate)
            advance()
    keypoints, none = (np.array(rates[address][1:]) for address in addresses)
    return Rates(chunk=len(chunks[0]), keypoints=keypoints, none=none)


def drawn_chunks(paths: Iterable[Path], *, rounds: int, chunk: int, seed: int) -> list[list[Path]]:
    """Draw the pictures of a warm-up and of `rounds` rounds; with too few pictures they come again."""
    known = list(dict.fromkeys(paths))
    draws, wanted = np.random.default_rng(seed), (rounds + 1) * chunk
    orders = [draws.permutation(len(known)) for _ in range(-(-wanted // len(known)))]
    rows = np.concatenate(orders)[:wanted].reshape(rounds + 1, chunk)
    return [[known[row] for row in line] for line in rows]
