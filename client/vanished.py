"""Finds indexed pictures whose files are gone."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from landseer.client.client import SearchClient
from landseer.client.errors import NotIndexed, UnusableInput
from landseer.client.folder_tree import FolderTree
from landseer.client.picture_files import composed, picture_id

_AT_ONCE = 16
"""Calls in flight."""
_FORCE = "mount the disk, or add --force if its files are gone for good"


@dataclass(frozen=True, kw_only=True)
class KeptPicture:
    """An indexed picture whose file was not found, and that is kept."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Missing:
    """A picture whose file was not found."""

    id: str
    path: Path
    """Where its file would be."""
    doubt: str
    """Why it may exist all the same."""


@dataclass(kw_only=True)
class Vanished:
    """What is indexed from a folder, compared with what is in it."""

    checked: int = 0
    """Number of pictures with ids of the folder."""
    gone: list[str] = field(default_factory=list)
    """Ids whose files are gone."""
    doubtful: list[KeptPicture] = field(default_factory=list)
    """Whose files may be on a disk that is not mounted, or in a folder that cannot be read."""
    foreign: list[KeptPicture] = field(default_factory=list)
    """Indexed from another place, or by no `landseer index`."""


async def find_vanished(client: SearchClient, folder: Path, *, prefix: str = "", force: bool = False) -> Vanished:
    """Return the pictures whose ids are those of files in a folder, and whose files are gone.

    prefix: that `landseer index` was given. Ids depend on the working folder, so a picture counts only if its metadata
    name the same `path`. UnusableInput if the folder is missing, empty or cannot be read, unless forced; with `force`
    files that cannot be seen count as gone.
    """
    if folder.is_file():
        raise UnusableInput(f"{folder} is a file; give the folder that it is in, or `landseer delete` its id")
    tree = FolderTree(root=folder)
    doubt = tree.doubt()
    if doubt and not force:
        raise UnusableInput(f"{doubt}, so nothing was pruned; {_FORCE}")
    found, missing, base = Vanished(), [], folder_id(folder, prefix=prefix)
    async for picture in client.list(base):
        names = picture.id[len(base) :].split("/")
        if "" in names or "." in names or ".." in names:
            continue  # No id of a file in this folder.
        found.checked += 1
        lookup = tree.find([composed(name) for name in names])
        if not lookup.there:
            missing.append(_Missing(id=picture.id, path=folder.joinpath(*names), doubt="" if force else lookup.doubt))
    for at in range(0, len(missing), _AT_ONCE):
        some = missing[at : at + _AT_ONCE]
        for one, paths in zip(some, await asyncio.gather(*(_path(client, one.id) for one in some)), strict=True):
            for path in paths:
                _sort(found, one, path)
    return found


def folder_id(folder: Path, *, prefix: str = "") -> str:
    """Return how the ids of the files in a folder begin."""
    whole = picture_id(folder, prefix=prefix)
    if whole == composed(f"{prefix}."):
        return composed(prefix)  # The working folder.
    return whole if whole.endswith("/") else f"{whole}/"


async def _path(client: SearchClient, id: str) -> list[str]:
    """Return the path of an indexed picture, empty if it has none; nothing if it was deleted meanwhile."""
    try:
        return [(await client.get(id)).metadata.get("path", "")]
    except NotIndexed:
        return []


def _sort(found: Vanished, one: _Missing, path: str) -> None:
    if not path:
        reason = "its metadata has no `path`, so it was not indexed from a file"
        found.foreign.append(KeptPicture(id=one.id, reason=reason))
    elif _canonical(path) != _canonical(str(one.path)):
        found.foreign.append(KeptPicture(id=one.id, reason=f"it was indexed from {path}"))
    elif one.doubt:
        found.doubtful.append(KeptPicture(id=one.id, reason=f"{one.doubt}; {_FORCE}"))
    else:
        found.gone.append(one.id)


def _canonical(path: str) -> str:
    return composed(os.path.realpath(path))
