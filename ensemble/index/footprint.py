"""The memory that a store's indexes need, and whether there is that much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from landseer.ensemble.config import BOTH, DEEP, KEYPOINTS, NONE, ServerConfig
from landseer.ensemble.errors import StoreUnusable
from landseer.ensemble.memory import GIB, memory_limit
from landseer.ensemble.store.record import StoreStats

log = logging.getLogger(__name__)

PROCESS_BYTES = GIB // 5
"""The process without indexes, measured with a million pictures (docs/indexing.md)."""
WORKING_BYTES = GIB
"""The process at work: it decodes pictures, and two of 100 megapixels take 0.8 GB."""
KEYPOINT_WORDS_BYTES = 8_240
"""Words of a picture's keypoints in memory, measured among 100,000 (docs/reports/very-same-thing.md); among 831 it is
8,325."""
DEEP_WORDS_BYTES = 2_000
"""Words of a picture's deep local features: about 100 of 18 bytes, and 20 for the picture (asmk.postings)."""
DISK_BYTES = {NONE: 37_990, KEYPOINTS: 70_656, DEEP: 107_622, BOTH: 140_288}
"""A picture in the store, by its local features: sums of what was measured (docs/indexing.md)."""
SURE = 1000
"""Pictures from which on the store itself tells how much disk one takes."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory for the indexes of so many pictures, and for the process."""

    pictures: int
    dimension: int
    """D, values of a descriptor."""
    words_bytes: int
    """Bytes of a picture's words; 0 without an index of words."""
    rest_bytes: int
    """Bytes of all else."""
    in_files: int = 0
    """Pictures whose vectors an index version has in files, which take memory only while there is some to spare."""
    words_in_files: int = 0
    """Pictures whose words are in files."""
    fields_bytes: int = 0
    """Bytes of a picture's indexed fields, about; 0 without any."""

    @property
    def bytes(self) -> int:
        """All of it."""
        vectors = max(0, self.pictures - self.in_files) * 4 * self.dimension
        return self.rest_bytes + vectors + self._wordy * self.words_bytes + self.pictures * self.fields_bytes

    @property
    def _wordy(self) -> int:
        """Pictures whose words are in memory."""
        return max(0, self.pictures - self.words_in_files)

    def __str__(self) -> str:
        vectors = f"{max(0, self.pictures - self.in_files):,} vectors of {self.dimension:,} x 4 bytes"
        each = f"{self.words_bytes:,} bytes each for visual words"
        words = f" + {f'{self._wordy:,} times ' if self.words_in_files else ''}{each}" if self.words_bytes else ""
        fields = f" + {self.pictures:,} times {self.fields_bytes:,} bytes for fields" if self.fields_bytes else ""
        return f"{vectors}{words}{fields} + {self.rest_bytes / GIB:.1f} GiB for the rest = {self.bytes / GIB:.1f} GiB"


def check_memory(
    stats: StoreStats,
    config: ServerConfig,
    dimension: int,
    *,
    words_bytes: int,
    in_files: int = 0,
    words_in_files: int = 0,
    fields: Callable[[int], int] = lambda pictures: 0,
) -> None:
    """StoreUnusable if the indexes of the store's pictures do not fit in memory; a warning if a full store's would not.

    dimension: D, or 0 if vectors are searched elsewhere; words_bytes: bytes of a picture's words in memory, 0 without
    an index of words. in_files and words_in_files: pictures of the index versions that will serve. fields: returns the
    bytes that the indexed fields of one of so many pictures take.
    """
    there = memory_limit()
    make = partial(Footprint, dimension=dimension, words_bytes=words_bytes)
    files = {"in_files": in_files, "words_in_files": words_in_files}
    held = fields(stats.pictures)
    now = make(pictures=stats.pictures, rest_bytes=PROCESS_BYTES, fields_bytes=held, **files)
    if now.bytes > there:
        raise StoreUnusable(
            f"{config.store} does not fit in memory: {now}, and this process may take {there / GIB:.1f} GiB; raise the "
            f"container's memory limit, {_built_first(stats, config, in_files)}or {_less(words_bytes, held)}"
        )
    disk = stats.used_bytes / stats.pictures if stats.pictures >= SURE else DISK_BYTES[config.local_features]
    pictures = int(stats.limit_bytes / disk)
    # As much again may be added while a version is built.
    beside = min(1.0, 2 * config.merge_share) if pictures >= config.versions_from else 1.0
    in_versions = int((1 - beside) * pictures)
    full = make(
        pictures=pictures,
        rest_bytes=WORKING_BYTES,
        in_files=in_versions,
        words_in_files=in_versions,
        fields_bytes=fields(pictures),
    )
    if full.bytes > there:
        log.warning(
            "a store as full as its limit of %.1f GiB allows will not fit in memory: %s, and this process may take "
            "%.1f GiB; lower --store-limit, or give it more memory",
            stats.limit_bytes / GIB,
            full,
            there / GIB,
        )


def _built_first(stats: StoreStats, config: ServerConfig, in_files: int) -> str:
    if in_files or stats.pictures < config.versions_from:
        return ""
    return f"put the vectors in files with `landseer index-versions build {config.store}`, "


def _less(words_bytes: int, fields_bytes: int) -> str:
    without = "serve it with `--local-features none`, or " if words_bytes else ""
    fewer = "index fewer fields (--index-field), or " if fields_bytes else ""
    return f"{without}{fewer}split the collection over several servers"
