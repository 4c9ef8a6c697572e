"""The deep local features of a store's pictures, stamped with the SHA-256 of the models that make them."""

from __future__ import annotations

from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.store.features import StoredFeatures
from landseer.ensemble.store.folder import LOCALS
from landseer.ensemble.store.local_features import LocalFeatures, pack_features, unpack_features


class Locals(StoredFeatures[LocalFeatures]):
    """The deep local features in an open store. Threads may share it."""

    name, noun = LOCALS, "local features"
    pack, unpack = staticmethod(pack_features), staticmethod(unpack_features)

    @property
    def sha256(self) -> str:
        """SHA-256 of the models that made the stored local features (`Profile.locals_sha256`); empty without any."""
        return self.made_by

    def stamp(self, sha256: str) -> None:
        """Stamp the store. ProfileMismatch if it has local features of other models, or `sha256` is empty."""
        if not sha256:
            raise ProfileMismatch(
                "the served models have no local descriptors; export them again with this release, "
                "or start the server without --local-features deep"
            )
        if (there := self.sha256) not in ("", sha256):
            raise ProfileMismatch(
                f"the local features in {self._folder} were made by other models than are served now: SHA-256 "
                f"{there[:12]} in the store, {sha256[:12]} served. Serve those models, index the pictures again into "
                "another folder, or start the server without --local-features deep"
            )
        if not there:
            self._set_stamp(sha256)
