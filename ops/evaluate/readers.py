"""The formats that `landseer evaluate` reads. Every error says which file, which line, what was expected."""

from __future__ import annotations

import csv
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from landseer.ensemble.pictures import Region
from landseer.ops.evaluate.dataset import Dataset, Query, Shot
from landseer.ops.evaluate.specs import SPECS
from landseer.ops.processes import OpsError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def read(spec: str) -> Dataset:
    """Read the data set that KIND:REST names. OpsError says what is wrong with it and how to mend it."""
    kind, separator, rest = spec.partition(":")
    if not separator or kind not in READERS or not rest:
        raise OpsError(f"cannot read {spec!r} as a data set; expected one of\n{SPECS}")
    return READERS[kind](rest)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, sorted. OpsError if there are none."""
    if not folder.is_dir():
        raise OpsError(f"{folder} is no folder; name one that holds pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise OpsError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def by_class(name: str, labelled: Sequence[tuple[Path, str]]) -> Dataset:
    """Every picture is a query, the others of its class are right. Classes of one have no right answer: references."""
    members: dict[str, list[Path]] = defaultdict(list)
    for path, label in labelled:
        members[label].append(path)
    queries = [
        Query(shot=Shot(path=path), easy=frozenset(members[label]) - {path}, label=label)
        for path, label in labelled
        if len(members[label]) > 1
    ]
    if not queries:
        raise OpsError(f"{name}: no class has two pictures, so there is nothing to find")
    return Dataset(name=name, queries=queries, references=[path for path, _ in labelled])


def _folder(rest: str) -> Dataset:
    # A folder inside of another that is named too must not count its pictures twice.
    found = dict.fromkeys(path for part in rest.split(",") for path in pictures_in(Path(part)))
    return by_class(f"folder:{rest}", [(path, path.parent.name) for path in found])


def _csv(rest: str) -> Dataset:
    file = Path(rest)
    labelled: dict[Path, str] = {}
    for number, row in enumerate(_rows(file), start=1):
        if not row or (number == 1 and [cell.strip().lower() for cell in row[:2]] == ["path", "class"]):
            continue
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise OpsError(f"{file}, line {number}: got {','.join(row)!r}; expected path,class")
        path = file.parent / row[0].strip()
        if not path.is_file():
            raise OpsError(f"{file}, line {number}: there is no picture {path}; paths count from the file's folder")
        if path in labelled:
            raise OpsError(f"{file}, line {number}: {row[0].strip()} was named before; a picture has one class")
        labelled[path] = row[1].strip()
    return by_class(f"csv:{rest}", list(labelled.items()))


def _rows(file: Path) -> list[list[str]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OpsError(f"cannot read {file}: {error}") from error


def _pairs(rest: str) -> Dataset:
    first, separator, second = rest.partition(",")
    if not separator:
        raise OpsError(f"pairs:{rest} names one folder; expected pairs:QUERIES,REFERENCES")
    queries, references = pictures_in(Path(first)), pictures_in(Path(second))
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in references:
        stems[path.stem].append(path)
    matched = [
        Query(shot=Shot(path=path), easy=frozenset(stems[path.stem]), label=path.stem)
        for path in queries
        if stems.get(path.stem)
    ]
    if not matched:
        raise OpsError(f"no picture of {first} has the file stem of one in {second}; the same stem is a match")
    return Dataset(name=f"pairs:{rest}", queries=matched, references=references)


def _revisitop(rest: str) -> Dataset:
    root, separator, name = rest.rpartition(",")
    if not separator:
        raise OpsError(f"revisitop:{rest} lacks a part; expected revisitop:ROOT,NAME, such as revisitop:data,roxford5k")
    folder = next((one for one in (Path(root), Path(root) / name) if (one / f"gnd_{name}.pkl").is_file()), None)
    if folder is None:
        raise OpsError(f"there is no gnd_{name}.pkl in {root} or {root}/{name}")
    known = _unpickled(folder / f"gnd_{name}.pkl")
    photos = folder / "jpg"
    references = [photos / f"{stem}.jpg" for stem in known["imlist"]]
    missing = [path for path in references if not path.is_file()]
    if missing:
        raise OpsError(
            f"{len(missing):,} of {len(references):,} photographs are not in {photos}, such as {missing[0].name}"
        )
    queries = [
        Query(
            shot=Shot(path=photos / f"{stem}.jpg", region=_region(truth["bbx"])),
            label=stem,
            **{part: frozenset(references[int(row)] for row in truth[part]) for part in ("easy", "hard", "junk")},
        )
        for stem, truth in zip(known["qimlist"], known["gnd"], strict=True)
    ]
    return Dataset(
        name=f"revisitop:{name}", queries=queries, references=references, protocols=("easy", "medium", "hard")
    )


def _region(corners: Sequence[float]) -> Region:
    left, top, right, bottom = (float(side) for side in corners)
    return Region(x=left, y=top, width=right - left, height=bottom - top)


class _Plain(pickle.Unpickler):
    """Reads only plain data and arrays: a file from elsewhere must run nothing."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what is allowed. UnpicklingError for the rest."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no ground truth needs")
        return super().find_class(module, name)


def _unpickled(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            known: dict[str, Any] = _Plain(stream).load()
        missing = {"imlist", "qimlist", "gnd"} - set(known)
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise OpsError(f"cannot read {path}: {error}") from error
    if missing:
        raise OpsError(
            f"{path} lacks {', '.join(sorted(missing))}; expected a ground truth of Revisited Oxford or Paris"
        )
    return known


READERS: Mapping[str, Callable[[str], Dataset]] = {
    "folder": _folder,
    "csv": _csv,
    "pairs": _pairs,
    "revisitop": _revisitop,
}
