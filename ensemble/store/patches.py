"""The patches of a store's pictures, stamped with the SHA-256 of the models that make them."""

from __future__ import annotations

from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.keypoints.patches import Patches, pack_patches, unpack_patches
from landseer.ensemble.store.features import StoredFeatures
from landseer.ensemble.store.folder import PATCHES


class StoredPatches(StoredFeatures[Patches]):
    """The patches in an open store. Threads may share it."""

    name, noun = PATCHES, "patches"
    pack, unpack = staticmethod(pack_patches), staticmethod(unpack_patches)

    def stamp(self, sha256: str) -> None:
        """Stamp the store with the models of patches. ProfileMismatch if it has patches of other models."""
        if (there := self.made_by) not in ("", sha256):
            raise ProfileMismatch(
                f"the patches in {self._folder} were made by other models than are served now: SHA-256 {there[:12]} in "
                f"the store, {sha256[:12]} served. Serve those models, index the pictures again into another folder, "
                "or start the server with --local-features none"
            )
        if not there:
            self._set_stamp(sha256)
