"""Read retrieval-SfM-120k and -30k: photographs in clusters, one for each 3D reconstruction, with matching pairs.

Radenović, Tolias and Chum 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation", section 4; in the
file format of the authors' cnnimageretrieval-pytorch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.gathering import Named, those_there
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.plain import checked, unpickled

SPLITS = ("train", "val")
KIND = "a retrieval-SfM pickle of cnnimageretrieval-pytorch"
HINT = "a picture named abc...uvwxyz lies at ims/yz/wx/uv/abc...uvwxyz"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A query and a photograph that shares enough points with it."""

    query: Path
    positive: Path


@dataclass(frozen=True, kw_only=True)
class Split:
    """`train` or `val` of the pickle, or the whitening pickle, which has no clusters."""

    where: str
    paths: Sequence[Path]
    clusters: Sequence[int]
    pairs: Sequence[Pair]


def read_sfm(rest: str) -> Photographs:
    """Read ROOT,NAME[,SPLIT], by default both splits. A class is SPLIT/CLUSTER, a 3D reconstruction.

    The split is part of the class name because cluster numbers of the two splits may coincide.
    """
    folder, name, splits = _parts(rest)
    known = unpickled(folder / f"{name}.pkl", keys=set(splits), kind=KIND)
    named = (one for split in splits for one in _named(split, _split(known[split], folder, f"{name}.pkl, {split}")))
    return those_there(f"sfm:{rest}", named, hint=HINT)


def sfm_pairs(rest: str) -> tuple[Pair, ...]:
    """Return the query and positive pairs of ROOT,NAME[,SPLIT] with both photographs present, in order.

    SPLIT may also be `whiten`: the pairs of NAME-whiten.pkl, which the authors learn whitening from.
    """
    folder, name, splits = _parts(rest, more=("whiten",))
    found: list[Pair] = []
    for split in splits:
        found += _pairs(folder, name, split)
    there = {path: path.is_file() for pair in found for path in (pair.query, pair.positive)}
    return tuple(pair for pair in found if there[pair.query] and there[pair.positive])


def _pairs(folder: Path, name: str, split: str) -> Sequence[Pair]:
    if split == "whiten":
        file = folder / f"{name}-whiten.pkl"
        known: Any = unpickled(file, keys={"cids", "qidxs", "pidxs"}, kind=KIND)
        return _split({**known, "cluster": [0] * len(known["cids"])}, folder, file.name).pairs
    known = unpickled(folder / f"{name}.pkl", keys={split}, kind=KIND)
    return _split(known[split], folder, f"{name}.pkl, {split}").pairs


def _parts(rest: str, more: tuple[str, ...] = ()) -> tuple[Path, str, tuple[str, ...]]:
    root, *others = rest.split(",")
    if len(others) not in (1, 2) or (len(others) == 2 and others[1] not in SPLITS + more):
        choices = ", ".join(SPLITS + more)
        raise DatasetError(f"got sfm:{rest}; expected sfm:ROOT,NAME or sfm:ROOT,NAME,SPLIT, split one of {choices}")
    name = others[0]
    folders = (Path(root), Path(root) / name, Path(root) / "train" / name)
    folder = next((one for one in folders if (one / f"{name}.pkl").is_file()), None)
    if folder is None and others[1:] == ["whiten"]:
        folder = next((one for one in folders if (one / f"{name}-whiten.pkl").is_file()), None)
    if folder is None:
        raise DatasetError(f"no {name}.pkl in {', '.join(map(str, folders))}")
    return folder, name, tuple(others[1:]) or SPLITS


def _named(split: str, found: Split) -> Iterator[Named]:
    for row, (path, cluster) in enumerate(zip(found.paths, found.clusters, strict=True)):
        yield Named(path=path, name=path.name, label=f"{split}/{cluster}", where=f"{found.where}, cid {row}")


def _split(known: Any, folder: Path, where: str) -> Split:
    checked(known, keys={"cids", "cluster", "qidxs", "pidxs"}, kind=KIND, where=where)
    cids = [_cid(cid, f"{where}, cid {row}") for row, cid in enumerate(known["cids"])]
    paths = [folder / "ims" / cid[-2:] / cid[-4:-2] / cid[-6:-4] / cid for cid in cids]
    clusters = _integers(known["cluster"], f"{where}, cluster", size=len(paths))
    queries = _integers(known["qidxs"], f"{where}, qidxs", below=len(paths))
    positives = _integers(known["pidxs"], f"{where}, pidxs", below=len(paths), size=len(queries))
    pairs = [Pair(query=paths[q], positive=paths[p]) for q, p in zip(queries, positives, strict=True)]
    return Split(where=where, paths=paths, clusters=clusters, pairs=pairs)


def _cid(cid: object, where: str) -> str:
    # A name with a path separator could escape `ims`.
    if not isinstance(cid, str) or not re.fullmatch(r"[\w-]{6,}", cid):
        raise DatasetError(f"{where}: got {cid!r}; expected a name of at least six letters, digits, - and _")
    return cid


def _integers(values: Any, where: str, *, size: int | None = None, below: int | None = None) -> list[int]:
    try:
        found = [int(value) for value in values]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: got {type(values).__name__}; expected a list of integers") from error
    if size is not None and len(found) != size:
        raise DatasetError(f"{where}: got {len(found):,} numbers; expected {size:,}")
    strange = next((value for value in found if below is not None and not 0 <= value < below), None)
    if strange is not None:
        raise DatasetError(f"{where}: got {strange}; expected rows of the {below:,} cids")
    return found
