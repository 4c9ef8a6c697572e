"""Main indexes by FAISS: exact, over codes alone, HNSW and IVF, each saved as files and mapped.

Filters. A search under a selection of a share s of the vectors must not find less than one without. IVF scans 1 / s as
many lists, so about as many vectors that it may return. HNSW walks through all nodes and keeps those that it may
return, so it keeps 1 / s as many; where that takes longer than comparing the query with all selected codes, it does the
latter (`SCAN`), in memory if they are few (`DECODED`). An index of codes and finer codes compares with all selected
finer codes if they are few enough for that; else its scan of the coarse ones passes over those that are not selected.
What finds fewer than k candidates nevertheless, searches all codes. So every search returns k candidates if there are
as many.

Metric. For vectors of equal norms inner products and distances give the same order. HNSW then takes distances: what PCA
leaves of such vectors has different norms, and by inner products the short ones would be neighbours of none.

FAISS maps what it reads (IO_FLAG_MMAP_IFC), except the lists of fast scan, which are small: they are read.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from landseer.ensemble.cores import cores
from landseer.ensemble.index import faiss_factory
from landseer.ensemble.index.engines import Keys, Vectors
from landseer.ensemble.index.index_setting import IndexSetting
from landseer.ensemble.index.main_index import Batch, Batches, BuildStopped, Sampled
from landseer.ensemble.index.selection import Selection

INDEX, KEYS, SETTING = "index.faiss", "keys.npy", "setting.json"
EFFORT = 64
"""Of HNSW, if the setting has none."""
KEPT = 400
"""Candidates that are compared by finer codes, if the setting has no effort."""
LISTS_SHARE = 32
"""One in so many lists is scanned, if the setting has no effort."""
SCAN = 60
"""HNSW compares a query with all selected codes if they are fewer than this, times its effort under the selection."""
DECODED = 2**27
"""Bytes of the selected codes, decoded, up to which they are kept in memory while the same filter is used: FAISS would
ask for each of all vectors whether it may return it."""
ALONE = 11
"""FAISS's way to scan the codes of fast scan for one query: 4.0 ms for a million with AVX-512, where what it takes by
itself, 0, takes 6.1. For several, 0 reads the codes once."""
EVEN = 0.02
"""Norms that differ by less, as a share of the longest, are taken as equal: float16 rounds unit vectors to 1e-3."""
WRITTEN = 2**22
"""Bytes that are written at a time."""
ADDED = 4096
"""Vectors that are added at a time; then progress is reported."""
EXACT = ("Flat", "SQfp16")
"""Factory strings that keep every bit of the stored vectors, which are fp16."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chosen:
    """The rows that a selection allows."""

    selector: Any
    """FAISS's IDSelectorBitmap."""
    rows: Keys
    """Their numbers, increasing."""
    decoded: list[Any] = field(default_factory=list)
    """A flat index of their codes, once it is needed."""

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.rows)


class FaissIndex:
    """An approximate main index, of any factory string that `faiss_factory.made` accepts; `MainIndex` documents it."""

    name: ClassVar[str] = "faiss"
    exact: ClassVar[bool] = False

    def __init__(self, setting: IndexSetting, index: Any, keys: Keys, *, threads: int) -> None:
        """index: of FAISS, its rows as many as keys [n]."""
        import faiss

        self._faiss: Any = faiss
        self._setting, self._whole, self._keys = setting, index, keys
        self._inner, self._transforms = faiss_factory.inner(index), faiss_factory.transforms(index)
        self._codes = faiss_factory.finest(index)
        self._threads = threads or min(self._faiss.omp_get_max_threads(), cores())
        self._last: tuple[Selection | None, _Chosen | None] = (None, None)

    @property
    def setting(self) -> IndexSetting:
        """How it was built and is searched."""
        return self._setting

    @property
    def dimension(self) -> int:
        """D, the number of values of a vector."""
        return int(self._whole.d)

    @property
    def size(self) -> int:
        """Number of vectors."""
        return len(self._keys)

    @property
    def keys(self) -> Keys:
        """Keys [n] of its rows, increasing. Read only."""
        return self._keys

    def searched_with(self, *, effort: int, rescored: int) -> FaissIndex:
        """Return the same index, with another effort, and candidates to score again."""
        setting = replace(self._setting, effort=effort, rescored=rescored)
        return type(self)(setting, self._whole, self._keys, threads=self._threads)

    def search(self, queries: Vectors, k: int, selection: Selection | None = None) -> tuple[Keys, Vectors]:
        """Return keys and scores [Q, k'] of candidates for the nearest to each of queries [Q, D], best first."""
        rows = np.ascontiguousarray(queries, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ValueError(f"got queries of shape {rows.shape}; expected rows of {self.dimension} values")
        chosen = self._chosen(selection)
        k = min(max(k, 0), self.size if chosen is None else chosen.count)
        if not k or not len(rows):
            return np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)
        # One list of codes is scanned for one query by one thread; others would spend processor time waiting.
        serial = len(rows) == 1 and isinstance(self._inner, self._faiss.IndexRefine)
        self._faiss.omp_set_num_threads(1 if serial else self._threads)
        for transform in self._transforms:
            rows = transform.apply(rows)
        scores, found = self._search(rows, k, chosen)
        short = (found < 0).any(axis=1)
        if short.any():
            scores[short], found[short] = self._search_all(rows[short], k, chosen)
        if self._inner.metric_type == self._faiss.METRIC_L2:
            scores = -scores
        # FAISS returns row -1 where scores are not numbers.
        return np.where(found < 0, found, self._keys[found]), scores

    def save(self, folder: Path) -> None:
        """Write its files into an empty folder. They are not synced: that is the caller's. OSError."""
        # FAISS's own files hide what fails when they are closed: on a full disk one would lack its end.
        with (folder / INDEX).open("wb") as file:
            self._faiss.write_index(self._whole, self._faiss.PyCallbackIOWriter(file.write, WRITTEN))
        np.save(folder / KEYS, self._keys)
        (folder / SETTING).write_text(self._setting.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, threads: int) -> FaissIndex:
        """Map the files that `save` wrote; vectors are read when searches first need them. ValueError, OSError."""
        import faiss

        try:
            setting = IndexSetting.from_json((folder / SETTING).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / SETTING} is damaged: {error}") from error
        keys = _keys(folder / KEYS)
        if not (folder / INDEX).exists():
            raise FileNotFoundError(f"{folder} has no {INDEX}")
        try:
            index = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError(f"{folder / INDEX} is damaged: {_why(error)}") from error
        if index.ntotal != len(keys):
            raise ValueError(f"{folder / INDEX} has {index.ntotal:,} vectors, and {KEYS} beside it {len(keys):,} keys")
        return main_index_of(setting)(setting, index, keys, threads=threads)

    @classmethod
    def build(
        cls,
        setting: IndexSetting,
        dimension: int,
        batches: Batches,
        *,
        expected: int,
        threads: int,
        sampled: Sampled | None = None,
        progress: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> FaissIndex:
        """Build from vectors of D values, as many as there are. BuildStopped, ValueError."""
        import faiss

        index = faiss_factory.made(setting.factory, dimension)
        faiss.omp_set_num_threads(threads or min(faiss.omp_get_max_threads(), cores()))
        if wanted := faiss_factory.sample_size(index):
            step = max(1, expected // wanted)
            read = _every(step, batches()) if sampled is None else sampled(step)
            sample = _sample(_checked(read, dimension, stop), 2 * wanted).reshape(-1, dimension)
            if len(sample) and faiss_factory.is_graph(index) and _even(sample):
                index = faiss_factory.made(setting.factory, dimension, by_distance=True)
            faiss_factory.train(index, sample, stop)
            del sample
        faiss_factory.reserve(index, expected)
        found = [np.empty(0, np.int64)]
        for keys, rows in _checked(batches(), dimension, stop):
            index.add(rows)
            found.append(keys)
            if progress is not None:
                progress(int(index.ntotal))
        return main_index_of(setting)(setting, index, np.concatenate(found), threads=threads)

    def _chosen(self, selection: Selection | None) -> _Chosen | None:
        """Return the rows of a selection; None for all. The last one is kept: a filter is often used again."""
        if selection is None:
            return None
        if self._last[0] is not selection:
            allowed = _allowed(selection, self._keys)
            chosen = _Chosen(
                selector=self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")),
                rows=np.flatnonzero(allowed),
            )
            self._last = (selection, None if chosen.count == self.size else chosen)
        return self._last[1]

    def _search(self, queries: Vectors, k: int, chosen: _Chosen | None) -> tuple[Vectors, Keys]:
        """Search as far as the setting says, further under a selection. Rows are -1 where it found fewer than k."""
        faiss, share = self._faiss, 1.0 if chosen is None else chosen.count / self.size
        only = {} if chosen is None else {"sel": chosen.selector}
        effort = self._setting.effort
        if isinstance(self._inner, faiss.IndexIVF):
            some = effort or max(1, self._inner.nlist // LISTS_SHARE)
            params = faiss.SearchParametersIVF(nprobe=min(self._inner.nlist, math.ceil(some / share)), **only)
        elif isinstance(self._inner, faiss.IndexRefine):
            kept = max(effort or KEPT, k)
            if chosen is not None and (chosen.count <= kept or self._is_decodable(chosen)):
                return self._search_all(queries, k, chosen)
            faiss.downcast_index(self._inner.base_index).implem = ALONE if len(queries) == 1 else 0
            first = faiss.SearchParametersIVF(nprobe=1, **only)
            params = faiss.IndexRefineSearchParameters(k_factor=min(kept, self.size) / k, base_index_params=first)
        elif isinstance(self._inner, faiss.IndexHNSW):
            wider = math.ceil(max(effort or EFFORT, k) / share)
            if chosen is not None and chosen.count <= SCAN * wider:
                return self._search_all(queries, k, chosen)
            params = faiss.SearchParametersHNSW(efSearch=wider, **only)
        else:
            return self._search_all(queries, k, chosen)
        found: tuple[Vectors, Keys] = self._inner.search(queries, k, params=params)
        return found

    def _search_all(self, queries: Vectors, k: int, chosen: _Chosen | None) -> tuple[Vectors, Keys]:
        """Compare with all codes that are allowed."""
        faiss, only = self._faiss, {} if chosen is None else {"sel": chosen.selector}
        codes, params = self._codes, faiss.SearchParameters(**only)
        if isinstance(codes, faiss.IndexIVF):
            params = faiss.SearchParametersIVF(nprobe=codes.nlist, **only)
        few = self._decoded(chosen) if chosen is not None and self._is_decodable(chosen) else None
        if few is not None:
            codes, params = few, faiss.SearchParameters()
        # As in `FaissExact`: for several queries BLAS reads vectors only once, for one FAISS's own kernel is faster.
        blas = len(queries) * self._threads >= 4
        faiss.cvar.distance_compute_blas_threshold = 1 if blas else 2**31 - 1
        scores, found = codes.search(queries, k, params=params)
        if few is not None and chosen is not None:
            found = np.where(found < 0, found, chosen.rows[found])
        return scores, found

    def _is_decodable(self, chosen: _Chosen) -> bool:
        """Return whether the chosen codes are vectors by themselves, and few enough to be kept decoded."""
        plain = isinstance(self._codes, self._faiss.IndexFlat | self._faiss.IndexScalarQuantizer)
        return plain and 4 * int(self._codes.d) * chosen.count <= DECODED

    def _decoded(self, chosen: _Chosen) -> Any:
        """Return a flat index of the chosen codes."""
        faiss, codes = self._faiss, self._codes
        if not chosen.decoded:
            every = faiss.rev_swig_ptr(codes.codes.data(), codes.ntotal * codes.code_size)
            index = faiss.IndexFlat(codes.d, codes.metric_type)
            index.add(codes.sa_decode(every.reshape(-1, codes.code_size)[chosen.rows]))
            chosen.decoded.append(index)
        return chosen.decoded[0]


class ExactIndex(FaissIndex):
    """Exact search over the stored vectors, in fp32 or fp16."""

    name: ClassVar[str] = "exact"
    exact: ClassVar[bool] = True


def main_index_of(setting: IndexSetting) -> type[FaissIndex]:
    """Return the kind of main index that a setting makes."""
    return ExactIndex if setting.factory in EXACT else FaissIndex


def _allowed(selection: Selection, keys: Keys) -> npt.NDArray[np.bool_]:
    """Return which of keys [n], increasing and 0 or more, are allowed: 2 ms a million, a tenth of `Selection.has`."""
    inside = int(np.searchsorted(keys, len(selection.allowed)))
    allowed = np.zeros(len(keys), np.bool_)
    allowed[:inside] = selection.allowed[keys[:inside]]
    return allowed


def _even(rows: Vectors) -> bool:
    """Return whether rows [n, D] have about equal norms."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return bool(np.ptp(norms) < EVEN * norms.max())


def _checked(
    batches: Iterable[tuple[Keys, npt.NDArray[Any]]], dimension: int, stop: threading.Event | None
) -> Iterator[tuple[Keys, Vectors]]:
    """Yield at most `ADDED` keys and vectors at a time, in fp32. ValueError unless keys increase; BuildStopped."""
    last = -1
    for all_keys, all_rows in batches:
        if all_rows.shape != (len(all_keys), dimension):
            raise ValueError(
                f"got {len(all_keys)} keys and vectors of shape {all_rows.shape}; expected rows of {dimension} values"
            )
        for start in range(0, len(all_keys), ADDED):
            if stop is not None and stop.is_set():
                raise BuildStopped(f"stopped at key {last}")
            keys = np.asarray(all_keys[start : start + ADDED], np.int64)
            if keys[0] <= last or (np.diff(keys) <= 0).any():
                raise ValueError(f"got keys from {keys[0]} to {keys[-1]} after key {last}; expected keys that increase")
            last = int(keys[-1])
            yield keys, np.ascontiguousarray(all_rows[start : start + ADDED], np.float32)


def _every(step: int, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield every n-th vector."""
    seen = 0
    for keys, rows in batches:
        first = (-seen) % step
        seen += len(keys)
        if first < len(keys):
            yield keys[first::step], rows[first::step]


def _sample(batches: Iterable[tuple[Keys, Vectors]], most: int) -> Vectors:
    """Return vectors [m, D], evenly from the first to the last: all of them, every second, fourth, so m <= most."""
    step, seen, size = 1, 0, 0
    parts: list[Vectors] = []
    for keys, rows in batches:
        parts.append(rows[(-seen) % step :: step].copy())
        seen, size = seen + len(keys), size + len(parts[-1])
        if size > most:
            parts, size, step = [part[::2] for part in parts], -(-size // 2), 2 * step
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _keys(file: Path) -> Keys:
    """Map the keys of an index. ValueError if they are not keys that increase."""
    try:
        keys = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if keys.dtype != np.int64 or keys.ndim != 1 or (np.diff(keys, prepend=-1) <= 0).any():
        raise ValueError(f"{file} is damaged: got {keys.dtype} of shape {keys.shape}; expected int64 that increase")
    return np.asarray(keys)


def _why(error: RuntimeError) -> str:
    """Return the last part of FAISS's message, without the place in its source."""
    return str(error).strip().splitlines()[-1].rpartition("Error: ")[2]
