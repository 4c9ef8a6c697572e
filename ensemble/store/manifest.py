"""What a backup is: a folder that holds the store's data file in blocks of 64 KiB.

    manifest.json   what the backup holds, when it was made, its packs; sealed with a checksum
    blocks          of each block of the data file: its SHA-256, the place of its pack in the manifest, its offset there
    packs/          files of blocks: one that this backup wrote, and links to those that it shares with earlier ones

The pack of a first backup is the data file itself. In `blocks` an entry has 44 bytes: the SHA-256, a uint32, a uint64,
little-endian.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from landseer.ensemble.errors import LandseerError
from landseer.ensemble.store.sealed import opened, sealed

FORMAT = "landseer-backup-1"
"""Changes when a release cannot read the backups of older ones."""
NAME, BLOCKS, PACKS = "manifest.json", "blocks", "packs"
BLOCK_BYTES = 64 * 2**10
"""Small, as what is written changes pages all over the file: docs/operate.md has figures."""
_ENTRY = struct.Struct("<32sIQ")


class BackupUnusable(LandseerError):
    """A folder is not a backup, cannot become one, or the backup is damaged."""

    code = "FAILED_PRECONDITION"
    reason = "BACKUP_UNUSABLE"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds."""

    release: str
    """Of Landseer, which made it."""
    made_at: str
    """ISO 8601, UTC."""
    store: str
    """The folder of the store."""
    store_format: str
    fingerprint: str
    """Of the profile of its vectors."""
    sequence: int
    """Number of changes of the store so far."""
    entries: dict[str, int]
    """By database."""
    bytes: int
    """Of the data file."""
    packs: tuple[str, ...]
    """Names of files in `packs`."""
    blocks_sha256: str
    """Of the file `blocks`."""

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return self.entries["records"]

    def to_text(self) -> str:
        """Return what `manifest.json` holds."""
        return sealed(FORMAT, dataclasses.asdict(self))


class Block(NamedTuple):
    """Where a block of the data file is."""

    sha256: bytes
    pack: int
    offset: int


class Backup:
    """A backup, open to be read."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """BackupUnusable if files are missing, or `blocks` is damaged."""
        self.folder, self.manifest = folder, manifest
        self.blocks = _read_blocks(folder, manifest)
        self._packs: list[int] = []
        try:
            for name in manifest.packs:
                self._packs.append(os.open(folder / PACKS / name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise damaged(folder / PACKS / name, f"cannot be read ({error.strerror})") from error

    def __enter__(self) -> Backup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def read(self, number: int) -> bytes:
        """Return a block as it is there now; OSError."""
        block = self.blocks[number]
        return os.pread(self._packs[block.pack], self.size(number), block.offset)

    def size(self, number: int) -> int:
        """Return the bytes of a block; the last one may be shorter."""
        return min(BLOCK_BYTES, self.manifest.bytes - number * BLOCK_BYTES)

    def sound(self) -> Iterator[bytes]:
        """Yield the blocks. BackupUnusable for the first that is not what was written."""
        for number, block in enumerate(self.blocks):
            path = self.folder / PACKS / self.manifest.packs[block.pack]
            try:
                data = self.read(number)
            except OSError as error:
                raise damaged(path, f"cannot be read ({error.strerror})") from error
            if hashlib.sha256(data).digest() != block.sha256:
                raise damaged(path, f"is not what was written: bytes from {block.offset:,} on have another SHA-256")
            yield data

    def close(self) -> None:
        """Close the files."""
        for pack in self._packs:
            os.close(pack)
        self._packs = []


def read_manifest(backup: Path) -> Manifest:
    """Read the manifest of a backup. BackupUnusable."""
    try:
        text = (backup / NAME).read_bytes()
    except OSError as error:
        raise BackupUnusable(
            f"{backup} is not a backup: {NAME} cannot be read ({error.strerror}); "
            "name a folder that `landseer backup` made"
        ) from error
    try:
        fields: dict[str, Any] = opened(FORMAT, text)
        return Manifest(**fields | {"packs": tuple(fields["packs"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BackupUnusable(
            f"{backup / NAME} is damaged, or of another release: {error}; "
            "use another backup, or the release that made it"
        ) from error


def packed(blocks: Sequence[Block]) -> bytes:
    """Return what the file `blocks` holds."""
    return b"".join(_ENTRY.pack(*block) for block in blocks)


def verify(backup: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Manifest:
    """Read a whole backup and compare every byte's checksum. progress: gets the bytes read, and all. BackupUnusable."""
    manifest, done = read_manifest(backup), 0
    with Backup(backup, manifest) as there:
        for data in there.sound():
            done += len(data)
            progress(done, manifest.bytes)
    return manifest


def damaged(path: Path, what: str) -> BackupUnusable:
    """Return the error for a damaged file of a backup."""
    return BackupUnusable(f"{path} {what}; this backup cannot be restored, use another")


def _read_blocks(backup: Path, manifest: Manifest) -> list[Block]:
    try:
        data = (backup / BLOCKS).read_bytes()
    except OSError as error:
        raise damaged(backup / BLOCKS, f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != manifest.blocks_sha256:
        raise damaged(backup / BLOCKS, "is not what was written")
    return [Block(*entry) for entry in _ENTRY.iter_unpack(data)]
