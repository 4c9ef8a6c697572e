"""Builds an index version aside, in a process of its own: `python -m landseer.ensemble.index.building`.

The order comes as a line of JSON on stdin. A process, because its work then takes no turns of the server's interpreter
and none of its memory, and because the system then gives it the processor when others do not want it. It ends when the
server closes stdin, so also when the server is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from landseer.client.readable import one_line
from landseer.ensemble.errors import LandseerError
from landseer.ensemble.index.faiss_index import main_index_of
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.live_index import largest_norm
from landseer.ensemble.index.main_index import Batch
from landseer.ensemble.index.manifest import Built, Manifest, files_of
from landseer.ensemble.index.mapped_vectors import written
from landseer.ensemble.store.beside import vectors_beside
from landseer.ensemble.store.vectors import Vectors
from landseer.ensemble.store.widening import widened

MODULE = "landseer.ensemble.index.building"
PART = 4096
"""Vectors that are read at a time, to train an index."""
LOWEST = 19
"""The niceness that leaves the processor to all others: beside one that is busy it gets 1.5% of it."""


@dataclass(frozen=True, kw_only=True)
class BuildOrder:
    """What to build, and where."""

    store: str
    """Folder of the store."""
    folder: str
    """An empty folder for the version."""
    token: str
    built: Built
    augmented: bool
    """Whether augmented vectors are searched."""
    setting: IndexSetting
    dimension: int
    """D."""
    expected: int
    """Number of vectors, about."""
    threads: int = 1
    """0 uses all cores."""
    nice: int = LOWEST
    """Added to the process's niceness."""
    read_ahead: bool = True
    """Whether to read the store's file ahead, all of it. Else what searches read stays in memory."""

    def to_json(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BuildOrder:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        return cls(**told | {"built": Built(**told["built"]), "setting": IndexSetting(**told["setting"])})


def build(order: BuildOrder, vectors: Vectors) -> Manifest:
    """Build a version from the vectors of a store, and sync its files.

    Batches are read one after the other while the store changes: what is removed meanwhile may be missing, and what is
    added has larger keys than the order's. So no old pages are kept alive for as long as it takes. StoreUnusable for
    damaged vectors; ValueError for a setting that does not fit them; OSError, for instance if the disk is full.
    """
    began, longest = time.monotonic(), 1.0
    kind, folder = main_index_of(order.setting), Path(order.folder)

    def stored() -> Iterator[Batch]:
        for keys, rows in vectors.scan(augmented=order.augmented, ahead=order.read_ahead):
            count = int(np.searchsorted(keys, order.built.sequence, side="right"))
            if not count:
                return
            yield keys[:count], rows[:count]

    def batches() -> Iterator[Batch]:
        nonlocal longest
        for keys, rows in stored() if kind.exact else written(stored(), folder):
            kept = widened(rows)
            longest = max(longest, largest_norm(kept))
            yield keys, kept

    def sampled(step: int) -> Iterator[Batch]:
        keys = vectors.keys(upto=order.built.sequence)[::step]
        for start in range(0, len(keys), PART):
            some = keys[start : start + PART]
            rows = vectors.descriptors(some.tolist(), augmented=order.augmented)
            there = rows.any(axis=1)
            if there.any():  # Not deleted meanwhile.
                yield some[there], rows[there]

    index = kind.build(
        order.setting, order.dimension, batches, expected=order.expected, threads=order.threads, sampled=sampled
    )
    index.save(folder)
    made = Manifest(
        token=order.token,
        built=order.built,
        setting=order.setting,
        dimension=order.dimension,
        size=index.size,
        longest=longest,
        made_at=time.time(),
        made_by=f"landseer {_release()} on {platform.node()}, process {os.getpid()}",
        seconds=round(time.monotonic() - began, 3),
        files=files_of(folder),
    )
    made.write(folder)
    return made


def main() -> int:
    """Build what the line on stdin orders. Returns 0, or 1 with the reason as the last line on stderr."""
    order = BuildOrder.from_json(sys.stdin.readline())
    os.nice(order.nice)
    _be_killed_first()
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    try:
        with vectors_beside(Path(order.store)) as vectors:
            build(order, vectors)
    except (LandseerError, ValueError, OSError, MemoryError, RuntimeError) as error:
        print(one_line(str(error)) or type(error).__name__, file=sys.stderr)
        return 1
    return 0


def _be_killed_first() -> None:
    """Have Linux end this process, not the server, if the machine or the container runs out of memory."""
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _end_with_the_server() -> None:
    sys.stdin.read()
    os._exit(1)


def _release() -> str:
    try:
        return metadata.version("landseer")
    except metadata.PackageNotFoundError:  # run from a folder on the path, not installed
        return "of an unknown release"


if __name__ == "__main__":
    sys.exit(main())
