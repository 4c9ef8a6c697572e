"""Find the photographs of a data set that can be decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from landseer.ensemble.config import Limits
from landseer.ensemble.cores import cores
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photograph, Photographs

# Only its sides matter: JPEGs are decoded at an eighth where that suffices, so files are fully read at little cost.
_SMALL = Profile(
    backbone="",
    weights_sha256="",
    sizes=Sizes(channels=1, reduced=1, locals=1, clusters=1, boxes=1, neighbours=1, candidates=1),
    long_side=64,
)
_AT_ONCE = 1024
"""Photographs queued at once; a data set may have millions."""


def readable(
    photographs: Photographs, progress: Callable[[], None] = lambda: None, *, threads: int | None = None
) -> Photographs:
    """Return the photographs that the orchestrator can decode; the others are listed in `skipped` with the reason.

    `progress` is called for each photograph, from this thread. DatasetError if none can be decoded.
    """
    left, skipped = [], []
    for photograph, why in _judged(photographs.photographs, threads or cores()):
        if why is None:
            left.append(photograph)
        else:
            skipped.append(f"{photograph.path}: {why}")
        progress()
    if skipped and not left:
        raise DatasetError(
            f"{photographs.name}: none of {len(skipped):,} pictures can be decoded, for example {skipped[0]}"
        )
    return replace(photographs, photographs=tuple(left), skipped=(*photographs.skipped, *skipped))


def _judged(photographs: Iterable[Photograph], threads: int) -> Iterator[tuple[Photograph, str | None]]:
    waiting = iter(photographs)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, _AT_ONCE)):
            yield from zip(batch, pool.map(_fault, (photograph.path for photograph in batch)), strict=True)


def _fault(path: Path) -> str | None:
    """Return the reason why a file cannot be decoded, or None."""
    try:
        data = path.read_bytes()
        # No limit on file size: the orchestrator's limit protects it from strangers.
        prepare(data, profile=_SMALL, limits=Limits(max_bytes=max(len(data), 1)))
    except OSError as error:
        return error.strerror or str(error)
    except InvalidInput as error:
        return error.description
    return None
