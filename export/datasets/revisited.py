"""Read Revisited Oxford and Paris. Radenović, Iscen, Tolias, Avrithis and Chum 2018."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Box, Photograph, Photographs
from landseer.export.datasets.plain import checked, unpickled

KIND = "a ground truth of Revisited Oxford or Paris"
DEGREES = ("easy", "hard", "junk")


@dataclass(frozen=True, kw_only=True)
class RevisitedQuery:
    """A query and its relevant references."""

    path: Path
    corners: tuple[float, float, float, float]
    """x0, y0, x1, y1 of the landmark, pixels."""
    rows: Mapping[str, Sequence[int]]
    """References by degree: easy, hard, junk."""


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """The whole benchmark. Its photographs may be missing: see `all_present`."""

    name: str
    folder: Path
    """Folder of the photographs."""
    references: Sequence[Path]
    queries: Sequence[RevisitedQuery]


def ground_truth(rest: str) -> GroundTruth:
    """Read ROOT,NAME: gnd_NAME.pkl in ROOT or ROOT/NAME, photographs in jpg/ beside it."""
    root, separator, name = rest.rpartition(",")
    if not separator:
        raise DatasetError(
            f"revisitop:{rest} is incomplete; expected revisitop:ROOT,NAME, such as revisitop:data,roxford5k"
        )
    folder = next((one for one in (Path(root), Path(root) / name) if (one / f"gnd_{name}.pkl").is_file()), None)
    if folder is None:
        raise DatasetError(f"no gnd_{name}.pkl in {root} or {root}/{name}")
    file, photos = folder / f"gnd_{name}.pkl", folder / "jpg"
    known = unpickled(file, keys={"imlist", "qimlist", "gnd"}, kind=KIND)
    if len(known["qimlist"]) != len(known["gnd"]):
        raise DatasetError(
            f"{file}: got {len(known['gnd'])} truths for {len(known['qimlist'])} queries; expected {KIND}"
        )
    references = [photos / f"{stem}.jpg" for stem in known["imlist"]]
    queries = [
        _query(photos / f"{stem}.jpg", truth, count=len(references), where=f"{file}, query {stem}")
        for stem, truth in zip(known["qimlist"], known["gnd"], strict=True)
    ]
    return GroundTruth(name=name, folder=photos, references=references, queries=queries)


def all_present(paths: Sequence[Path], folder: Path) -> None:
    """Raise DatasetError if photographs are missing, since results would not be comparable."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing):,} of {len(paths):,} photographs are missing from {folder}, such as {missing[0].name}"
        )


def read_revisited(rest: str) -> Photographs:
    """Read the queries of ROOT,NAME with their boxes, each as its own class; references have no class.

    A query whose size cannot be read is skipped, because its box is in pixels.
    """
    truth = ground_truth(rest)
    all_present([query.path for query in truth.queries], truth.folder)
    found, skipped = [], []
    for query in truth.queries:
        try:
            found.append(Photograph(path=query.path, label=query.path.stem, boxes=(_box(query),)))
        except (OSError, ValueError) as error:
            skipped.append(f"{query.path}: {error}")
    return Photographs(name=f"revisitop:{rest}", photographs=tuple(found), skipped=tuple(skipped))


def _query(path: Path, truth: Any, *, count: int, where: str) -> RevisitedQuery:
    checked(truth, keys={"bbx", *DEGREES}, kind=KIND, where=where)
    try:
        x0, y0, x1, y1 = (float(side) for side in truth["bbx"])
        rows = {degree: [int(row) for row in truth[degree]] for degree in DEGREES}
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: {error}; expected {KIND}") from error
    strange = [row for degree in DEGREES for row in rows[degree] if not 0 <= row < count]
    if strange:
        raise DatasetError(f"{where}: got reference {strange[0]}; there are {count:,}; expected {KIND}")
    return RevisitedQuery(path=path, corners=(x0, y0, x1, y1), rows=rows)


def _box(query: RevisitedQuery) -> Box:
    width, height = _size(query.path)
    x0, x1 = (min(max(side / width, 0.0), 1.0) for side in query.corners[::2])
    y0, y1 = (min(max(side / height, 0.0), 1.0) for side in query.corners[1::2])
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"its box {query.corners} lies outside its {width} x {height} pixels")
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _size(path: Path) -> tuple[int, int]:
    """Return width and height after EXIF rotation, as the orchestrator sees the photograph."""
    from PIL import Image

    with Image.open(path) as picture:
        width, height = picture.size
        turned = picture.getexif().get(0x0112, 1) >= 5
    return (height, width) if turned else (width, height)
