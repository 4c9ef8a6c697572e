"""Writes the blocks of a backup: new ones into a pack, and those that the backup before has by reference to it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from landseer.ensemble.store.manifest import BLOCK_BYTES, PACKS, Backup, Block, packed


class Packing:
    """The packs of a new backup. Close it in the end."""

    def __init__(self, folder: Path, name: str, before: Backup | None) -> None:
        """folder: of the new backup. name: of its pack. before: a backup on the same disk, to share blocks with."""
        self.folder, self._name = folder, name
        (folder / PACKS).mkdir()
        self._before = before if before is not None and self._linked(before) else None
        self._earlier = list(self._before.manifest.packs) if self._before else []
        self._pack = (folder / PACKS / name).open("wb")
        self._blocks: list[Block] = []
        self.new_bytes = 0
        """Written so far."""

    def add(self, data: memoryview) -> None:
        """Add the next bytes of the data file: whole blocks, unless they are the last."""
        for start in range(0, len(data), BLOCK_BYTES):
            self._blocks.append(self._added(data[start : start + BLOCK_BYTES]))

    def finish(self) -> tuple[list[str], bytes]:
        """Sync the pack to disk, and return the names of the packs, and what the file `blocks` holds."""
        self._pack.flush()
        os.fsync(self._pack.fileno())
        names = [*self._earlier, self._name]
        used = sorted({block.pack for block in self._blocks})
        for name in set(names) - {names[place] for place in used}:
            (self.folder / PACKS / name).unlink()
        places = {old: new for new, old in enumerate(used)}
        return [names[place] for place in used], packed([one._replace(pack=places[one.pack]) for one in self._blocks])

    def close(self) -> None:
        """Close the files. May be called twice."""
        self._pack.close()

    def _added(self, data: memoryview) -> Block:
        digest, number = hashlib.sha256(data).digest(), len(self._blocks)
        if self._before is not None and self._has(self._before, number, digest, data):
            return self._before.blocks[number]
        offset = self.new_bytes
        self._pack.write(data)
        self.new_bytes += len(data)
        return Block(digest, len(self._earlier), offset)

    def _has(self, before: Backup, number: int, digest: bytes, data: memoryview) -> bool:
        """Return whether the backup before has a block. Its checksum is old, so its bytes are compared, too."""
        if number >= len(before.blocks) or before.blocks[number].sha256 != digest:
            return False
        try:
            return before.read(number) == data
        except OSError:
            return False

    def _linked(self, before: Backup) -> bool:
        """Link the packs of the backup before, and return whether that is possible."""
        try:
            for name in before.manifest.packs:
                os.link(before.folder / PACKS / name, self.folder / PACKS / name)
        except OSError:
            for path in (self.folder / PACKS).iterdir():
                path.unlink()
            return False
        return True
