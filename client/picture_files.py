"""Finds picture files and derives their ids."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from landseer.client.errors import UnusableInput
from landseer.client.picture_content import HEAD, format_of
from landseer.client.readable import plural

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
"""Endings, in any case, of file names that count as pictures whatever the file holds."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A file to index."""

    id: str
    path: Path

    @property
    def absolute(self) -> str:
        """The absolute path, without `..`; links are not resolved."""
        return os.path.normpath(self.path.absolute())

    def version(self) -> str:
        """Return the size in bytes and the time of the last change in nanoseconds since 1970, as SIZE-TIME."""
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def changed_since(self, seconds: float) -> bool:
        """Return whether the file was changed after a time, in seconds since 1970."""
        return self.path.stat().st_mtime > seconds


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """A file or folder that is not indexed."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class FoundPictures:
    """The pictures in a list of files and folders, and what was passed over on the way."""

    pictures: tuple[PictureFile, ...]
    ignored: tuple[PassedOver, ...] = ()
    """What is no picture."""
    unreadable: tuple[PassedOver, ...] = ()
    """What may be a picture, or hold some, and cannot be indexed."""
    linked: int = 0
    """Number of links to folders that were followed."""


def find_pictures(paths: Iterable[Path], *, prefix: str = "") -> FoundPictures:
    """Return the pictures in files and folders, sorted within each folder, each id once.

    A file is a picture by its name or by its first bytes. What cannot be read stops nothing: it is in `unreadable`.
    Hidden files and folders inside a folder are skipped. A link to a folder is followed, after all that is no link,
    unless its folder was searched already. Pictures may be empty.
    """
    search = _Search()
    search.add(paths)
    pictures: dict[str, PictureFile] = {}
    working = _working_folders()
    for path in search.pictures:
        found = PictureFile(id=_id(path, prefix, working), path=path)
        why = _unusable(found, pictures.get(found.id))
        if why:
            search.unreadable.append(PassedOver(path=path, reason=why))
        else:
            pictures.setdefault(found.id, found)
    return FoundPictures(
        pictures=tuple(pictures.values()),
        ignored=_each_once(search.ignored),
        unreadable=_each_once(search.unreadable),
        linked=search.linked,
    )


def check_found(found: FoundPictures, paths: Iterable[Path]) -> None:
    """Raise UnusableInput, with the reasons, if there are no pictures."""
    if found.pictures:
        return
    if found.unreadable:
        first, more = found.unreadable[0], len(found.unreadable) - 1
        others = f" (and {plural(more, 'more path')} cannot be used)" if more else ""
        raise UnusableInput(f"no pictures: {first.path}: {first.reason}{others}")
    where = ", ".join(str(path) for path in paths)
    if not found.ignored:
        raise UnusableInput(f"no pictures in {where}: found no files; hidden ones are skipped")
    raise UnusableInput(
        f"no pictures in {where}: found {plural(len(found.ignored), 'file')}, but none with a known suffix "
        f"({' '.join(SUFFIXES)}) or the first bytes of a picture"
    )


def picture_id(path: Path, *, prefix: str = "") -> str:
    """Return the id of a file: the prefix, then its path, with forward slashes and composed characters (Unicode's NFC).

    The path is relative to the working folder for a file inside it, otherwise absolute, however it was named. The id
    includes the folder, so that an a.jpg in each of two folders gets two ids.
    """
    return _id(path, prefix, _working_folders())


def composed(id: str) -> str:
    """Return an id with composed characters: the same name is spelled in two ways, by macOS and by others."""
    return unicodedata.normalize("NFC", id)


def _id(path: Path, prefix: str, working: Sequence[Path]) -> str:
    absolute = Path(os.path.normpath(path.absolute()))
    inside = next((absolute.relative_to(folder) for folder in working if absolute.is_relative_to(folder)), absolute)
    return composed(prefix + inside.as_posix())


def _working_folders() -> list[Path]:
    """Return the working folder, also as the shell spells it if that goes through links; none if it is the root.

    Everything is inside the root, so services, which run there, keep absolute ids.
    """
    folders, shell = [Path.cwd()], Path(os.environ.get("PWD", ""))
    with contextlib.suppress(OSError):  # The variable may be left over from anywhere.
        if shell.is_absolute() and shell.samefile(folders[0]):
            folders.append(shell)
    return [folder for folder in folders if folder != Path(folder.anchor)]


def _unusable(found: PictureFile, other: PictureFile | None) -> str:
    """Return why a file cannot be indexed beside those that were found before; empty if it can."""
    try:
        found.id.encode()
        found.absolute.encode()
    except UnicodeEncodeError:
        return f"the name is not UTF-8: {os.fsencode(found.path)!r}; rename the file, or the folder that it is in"
    if other and other.absolute != found.absolute:
        return f"it has the same id as {other.path}, as both names look the same; rename one of them"
    return ""


def _each_once(passed: Iterable[PassedOver]) -> tuple[PassedOver, ...]:
    return tuple({os.path.normpath(over.path.absolute()): over for over in passed}.values())


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


@dataclass(kw_only=True)
class _Search:
    """Walks through folders."""

    pictures: list[Path] = field(default_factory=list)
    ignored: list[PassedOver] = field(default_factory=list)
    unreadable: list[PassedOver] = field(default_factory=list)
    linked: int = 0
    _links: list[Path] = field(default_factory=list)
    """Links to folders, to be followed later: names without links make better ids."""
    _walked: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of each folder that was read."""

    def add(self, paths: Iterable[Path]) -> None:
        """Sort out files and folders, and all that is in these."""
        for path in paths:
            self._add_given(path)
        while self._links:
            self._follow(self._links.pop(0))

    def _add_given(self, path: Path) -> None:
        try:
            if path.is_dir():
                self._walk(path, again=True)
            elif path.exists():
                self._add_file(path)
            elif str(path).startswith(("http:/", "https:/")):
                self._fail(path, "an address; only files are indexed: download it, then index the file")
            else:
                self._fail(path, "there is no such file or folder; check the path")
        except OSError as error:
            self._fail(path, f"cannot read it: {_why(error)}")

    def _follow(self, link: Path) -> None:
        known = len(self._walked)
        self._walk(link, again=False)
        if len(self._walked) > known:
            self.linked += 1
        else:
            self._ignore(link, "a link to a folder that was searched already")

    def _walk(self, folder: Path, *, again: bool) -> None:
        """Search a folder; one that was searched already only if `again`."""
        try:
            status = folder.stat()
            key = (status.st_dev, status.st_ino)
            if key in self._walked and not again:
                return
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self._fail(folder, f"cannot read the folder: {_why(error)}")
            return
        self._walked.add(key)
        for entry in entries:
            if not entry.name.startswith("."):
                self._add_entry(entry, again=again)

    def _add_entry(self, entry: os.DirEntry[str], *, again: bool) -> None:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                self._walk(path, again=again)
            elif entry.is_dir():
                self._links.append(path)
            else:
                self._add_file(path)
        except OSError as error:
            self._fail(path, f"cannot read it: {_why(error)}")

    def _add_file(self, path: Path) -> None:
        if not path.is_file():
            self._ignore(path, "a link to nothing" if path.is_symlink() and not path.exists() else "not a regular file")
        elif path.suffix.lower() in SUFFIXES:
            self.pictures.append(path)
        else:
            self._look_into(path)

    def _look_into(self, path: Path) -> None:
        with path.open("rb") as file:
            format = format_of(file.read(HEAD))
        if format == "TIFF" and path.suffix:
            self._ignore(path, "TIFF under another name, as cameras write raw pictures; rename it to .tif to index it")
        elif format:
            self.pictures.append(path)
        else:
            self._ignore(path, "no picture, by its name and its first bytes")

    def _ignore(self, path: Path, reason: str) -> None:
        self.ignored.append(PassedOver(path=path, reason=reason))

    def _fail(self, path: Path, reason: str) -> None:
        self.unreadable.append(PassedOver(path=path, reason=reason))
