"""The keypoints of a store's pictures, stamped with the codebook of their words."""

from __future__ import annotations

from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.keypoints.compact import CompactKeypoints, pack_keypoints, unpack_keypoints
from landseer.ensemble.store.features import StoredFeatures
from landseer.ensemble.store.folder import KEYPOINTS


class StoredKeypoints(StoredFeatures[CompactKeypoints]):
    """The keypoints in an open store. Threads may share it."""

    name, noun = KEYPOINTS, "keypoints"
    pack, unpack = staticmethod(pack_keypoints), staticmethod(unpack_keypoints)

    def stamp(self, codebook: str) -> None:
        """Stamp the store with a codebook's fingerprint. ProfileMismatch if it has keypoints of another one."""
        if (there := self.made_by) not in ("", codebook):
            raise ProfileMismatch(
                f"the keypoints in {self._folder} have words of codebook {there}, and the server now has {codebook}; "
                "start it with that codebook, index the pictures again into another folder, or start it with "
                "--local-features none"
            )
        if not there:
            self._set_stamp(codebook)
