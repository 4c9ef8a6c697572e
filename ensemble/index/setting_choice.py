"""Which main index a collection gets: the one that the operator names, the tuned one, or the default for its size."""

from __future__ import annotations

import os
from functools import cache, lru_cache
from pathlib import Path

from landseer.ensemble.config import ServerConfig
from landseer.ensemble.index.faiss_factory import least_vectors, made
from landseer.ensemble.index.index_setting import IndexSetting

TUNED = "index-setting.json"
"""In the store's folder, written by `landseer tune-index`."""
EXACT = IndexSetting(factory="Flat")
"""For few vectors, and wherever an index has too few to be trained on."""
EXACT_BELOW = 200_000
"""Vectors below which the default is exact search: one search of so many takes 65 ms on two quiet cores, a sixth of
describing the picture, and nothing is missed."""
LARGE = IndexSetting(factory="PCAR768,IVF1,PQ192x4fs,Refine(SQ8)", effort=1600, rescored=4)
"""The default from there on: recall@10 of 0.96 to 0.99 among a million generated vectors (docs/scale.md)."""
WHOLE = IndexSetting(factory="HNSW32,SQ8", effort=384, rescored=2)
"""That for vectors of fewer values than `FEW`."""
FEW = 768
"""Values of a vector below which none are left out: a distance of all takes little, too."""


def setting_for(size: int, config: ServerConfig, *, dimension: int) -> IndexSetting:
    """Return how to index a collection of `size` vectors of `dimension` values.

    ValueError if `config.index` or the tuned setting is not one, or FAISS cannot make the index; OSError.
    """
    found = parsed(config.index) if config.index else tuned(config.folder)
    if found is None and size >= EXACT_BELOW:
        return LARGE if dimension >= FEW else WHOLE
    if found is None:
        return EXACT
    return found if size >= _least(found.factory, dimension) else EXACT


def parsed(text: str) -> IndexSetting:
    """Read FACTORY[:EFFORT[:RESCORED]], such as HNSW32,SQ8:96:4. ValueError for another form."""
    factory, *numbers = text.split(":")
    if not factory.strip() or len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise ValueError(
            f"index is {text!r}; expected a FAISS factory string, then its effort and the candidates to score again "
            "for each hit, both optional: FACTORY[:EFFORT[:RESCORED]], such as HNSW32,SQ8:96:4"
        )
    names = ("effort", "rescored")
    return IndexSetting(factory=factory.strip(), **dict(zip(names, map(int, numbers), strict=False)))


def named(setting: IndexSetting) -> str:
    """Return a setting as `parsed` reads it."""
    return f"{setting.factory}:{setting.effort}:{setting.rescored}"


def tuned(store: Path) -> IndexSetting | None:
    """Return the setting that `landseer tune-index` wrote for a store; None if it did not. ValueError, OSError."""
    file = store / TUNED
    try:
        there = file.stat()
        return _read(file, (there.st_ino, there.st_mtime_ns, there.st_size))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged: {error}. Remove it, or run `landseer tune-index {store}` again"
        ) from error


# Both are kept, as the merger asks each second, on the event loop.


@cache
def _least(factory: str, dimension: int) -> int:
    """Return how many vectors an index needs. ValueError if FAISS cannot make it."""
    return least_vectors(made(factory, dimension))


@lru_cache(maxsize=8)
def _read(file: Path, stamp: tuple[int, ...]) -> IndexSetting:
    """Read a setting. stamp: changes when the file does. ValueError, OSError."""
    return IndexSetting.from_json(file.read_text(encoding="utf-8"))


def write_tuned(store: Path, setting: IndexSetting) -> Path:
    """Write the setting for a store and return its file; it is whole and on disk, or the one before is. OSError."""
    file = store / TUNED
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as opened:
        opened.write(setting.to_json())
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)
    return file
