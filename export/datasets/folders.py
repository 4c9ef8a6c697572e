"""Folders of pictures: a class is the folder that holds them, told by its name."""

from __future__ import annotations

from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photograph, Photographs

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, sorted. DatasetError if there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; name one that holds pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DatasetError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def read_folders(rest: str) -> Photographs:
    """Read DIR[,DIR...]. A folder inside of another that is named too does not count its pictures twice."""
    found = dict.fromkeys(path for part in rest.split(",") for path in pictures_in(Path(part)))
    photographs = tuple(Photograph(path=path, label=path.parent.name) for path in found)
    return Photographs(name=f"folder:{rest}", photographs=photographs)
