"""Read folders of pictures: the class of a picture is the name of its folder."""

from __future__ import annotations

from pathlib import Path

from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.photograph import Photograph, Photographs

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, sorted. DatasetError if there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; expected one with pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DatasetError(f"{folder} has no pictures ({', '.join(sorted(SUFFIXES))})")
    return found


def read_folders(rest: str) -> Photographs:
    """Read DIR[,DIR...]. Pictures in nested folders that are both named count once."""
    found = dict.fromkeys(path for part in rest.split(",") for path in pictures_in(Path(part)))
    photographs = tuple(Photograph(path=path, label=path.parent.name) for path in found)
    return Photographs(name=f"folder:{rest}", photographs=photographs)
