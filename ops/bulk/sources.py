"""Finds the pictures of a bulk run: in files and folders, behind URLs, and in lists of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from landseer.client.picture_files import SUFFIXES, PictureFile, composed, find_pictures, picture_id
from landseer.ops.errors import OpsError

_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call that which changes with a file, the most reliable first."""


@dataclass(frozen=True, kw_only=True)
class BulkPicture:
    """A picture to index."""

    id: str
    absolute: str
    """The absolute path, or the URL."""
    version: str
    """Changes with the content, as SIZE-TIME for a file; empty where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class NotIndexed:
    """A picture that was not indexed, or a place that could not be read."""

    id: str
    why: str


@dataclass(kw_only=True)
class FoundSources:
    """The pictures of a run, each id once, and what was passed over."""

    pictures: list[BulkPicture] = field(default_factory=list)
    unreadable: list[NotIndexed] = field(default_factory=list)
    ignored: int = 0
    """Number of files that are no pictures."""


def find_sources(sources: Iterable[str], *, prefix: str = "") -> FoundSources:
    """Find the pictures in files, folders and URLs, in that order. OpsError for a URL that nothing here can read.

    Files get the ids that `landseer index` gives them; what a URL leads to gets its own URL as the id, after `prefix`.
    """
    given = list(sources)
    urls = [source for source in given if is_url(source)]
    paths = [Path(source) for source in given if not is_url(source)]
    found = _in_files(paths, prefix)
    for url in urls:
        _add_url(url, prefix, found)
    return _each_once(found)


def read_list(path: Path) -> list[str]:
    """Return the lines of a list of files, folders and URLs, without empty ones. OpsError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(
            f"cannot read the list {path}: {error}; expected UTF-8 text with a file or URL a line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def is_url(address: str) -> bool:
    """Return whether an address is a URL, not a path."""
    return "://" in address


def _in_files(paths: Sequence[Path], prefix: str) -> FoundSources:
    found = find_pictures(paths, prefix=prefix)
    return FoundSources(
        pictures=[
            BulkPicture(id=file.id, absolute=file.absolute, version=_version_of(file)) for file in found.pictures
        ],
        unreadable=[NotIndexed(id=picture_id(over.path, prefix=prefix), why=over.reason) for over in found.unreadable],
        ignored=len(found.ignored),
    )


def _version_of(file: PictureFile) -> str:
    try:
        return file.version()
    except OSError:
        return ""  # Reading it reports the reason.


def _add_url(url: str, prefix: str, found: FoundSources) -> None:
    """Add what a URL leads to. One that ends as pictures do is taken for a picture, without a look: lists are long."""
    if _is_picture(url):
        found.pictures.append(BulkPicture(id=composed(prefix + url), absolute=url, version=""))
        return
    # Imported here, as only URLs need it.
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise OpsError(f"{url} cannot be read: {error}; install what reads it, or copy the pictures here") from error
    try:
        listed: dict[str, dict[str, Any]] = system.find(root, detail=True)
    except Exception as error:  # Each file system has errors of its own.
        found.unreadable.append(NotIndexed(id=prefix + url, why=f"cannot list it: {error or type(error).__name__}"))
        return
    if not listed:
        found.unreadable.append(NotIndexed(id=prefix + url, why="there is nothing there; check the URL"))
    for path, info in sorted(listed.items()):
        if any(part.startswith(".") for part in PurePosixPath(path.removeprefix(root)).parts):
            continue
        if not _is_picture(path):
            found.ignored += 1
            continue
        address = system.unstrip_protocol(path)
        found.pictures.append(BulkPicture(id=composed(prefix + address), absolute=address, version=_stamp(info)))


def _is_picture(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _stamp(info: Mapping[str, Any]) -> str:
    """Return what tells whether a listed file has changed: its size, and the best of what else is known."""
    known = [str(info[name]).strip('"') for name in _STAMPS if info.get(name)]
    return "-".join([str(info.get("size", "")), *known[:1]])


def _each_once(found: FoundSources) -> FoundSources:
    """Keep the first of the pictures with the same id; another one that has it is named."""
    pictures: dict[str, BulkPicture] = {}
    for picture in found.pictures:
        first = pictures.setdefault(picture.id, picture)
        if first.absolute != picture.absolute:
            found.unreadable.append(NotIndexed(id=picture.absolute, why=f"it has the same id as {first.absolute}"))
    found.pictures = list(pictures.values())
    return found
