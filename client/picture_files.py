"""Finds picture files and derives their ids."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from landseer.client.errors import UnusableInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings, in any case, of file names that count as pictures."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A file to index."""

    id: str
    path: Path

    @property
    def absolute(self) -> str:
        """The absolute path, without `..`; links are not resolved."""
        return os.path.normpath(self.path.absolute())


@dataclass(frozen=True, kw_only=True)
class FoundPictures:
    """The pictures in a list of files and folders."""

    pictures: tuple[PictureFile, ...]
    ignored: int
    """Number of files whose names are not those of pictures."""


def find_pictures(paths: Iterable[Path], *, prefix: str = "") -> FoundPictures:
    """Return the pictures in files and folders, sorted within each folder, each id once.

    Hidden files and folders inside a folder are skipped, and links to folders are not followed. Raises UnusableInput
    if there are no pictures.
    """
    given = list(paths)
    files = [file for path in given for file in _files(path)]
    pictures = {picture_id(file, prefix=prefix): file for file in files if file.suffix.lower() in SUFFIXES}
    if not pictures:
        where = ", ".join(str(path) for path in given)
        raise UnusableInput(f"no pictures in {where}: looked for names that end in {' '.join(SUFFIXES)}")
    ignored = sum(file.suffix.lower() not in SUFFIXES for file in files)
    return FoundPictures(
        pictures=tuple(PictureFile(id=id, path=path) for id, path in pictures.items()), ignored=ignored
    )


def picture_id(path: Path, *, prefix: str = "") -> str:
    """Return the id of a file: the prefix, then the path as given, normalised, with forward slashes.

    The id includes the folder, so that an a.jpg in each of two folders gets two ids.
    """
    return prefix + Path(os.path.normpath(path)).as_posix()


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path)
    elif path.exists():
        yield path
    else:
        raise UnusableInput(f"there is no file or folder {path}")


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UnusableInput(f"cannot read the folder {folder}: {error.strerror or error}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
