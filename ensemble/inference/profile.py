"""What the served models are and how pictures are prepared for them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from landseer.ensemble.inference.contracts import DEFAULT_DETECTOR, MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, Sizes


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Chosen at export, carried by the manifest and by Triton's model configuration, stamped on the store.

    Vectors of two pictures may be compared only if their `fingerprint` is the same.
    """

    backbone: str
    weights_sha256: str
    """Of the trunk's weights and of every head that shapes a stored vector."""
    sizes: Sizes
    descriptor: str = "gem"
    """The head that makes the global descriptor of the trunk's maps: gem, rmac, rmac-rpn, cider."""
    detector: str = DEFAULT_DETECTOR
    """What makes the boxes, a key of `DETECTOR_INPUTS`. It shapes no vector, so it is not in the fingerprint."""
    detector_sha256: str = ""
    """Of a detector's own trained weights; empty where there are none."""
    locals_sha256: str = ""
    """Of all that shapes local descriptors, the trunk and their projection; empty where the models give none.

    Not in the fingerprint: a store that keeps no local descriptors goes with any."""
    long_side: int = 640
    """Pictures are resized so that their longer side has this many pixels."""
    side_multiple: int = SIDE_MULTIPLE
    min_side: int = MIN_SIDE
    max_side: int = MAX_SIDE
    untrained: tuple[str, ...] = ()
    """Parts whose weights are seeded, not learned: attention, whitening, detector, lattqe and others."""
    version: str = "1"
    """The model version, the folder under each model of the repository."""

    @property
    def fingerprint(self) -> str:
        """What must agree between two vectors: models and preprocessing, not version numbers or limits of requests."""
        sizes = self.sizes
        return json.dumps(
            {
                "backbone": self.backbone,
                "descriptor": self.descriptor,
                "SHA-256 of the weights": self.weights_sha256,
                "size of descriptors": sizes.channels,
                "size of co-attention vectors": sizes.reduced,
                "local features": sizes.locals,
                "clusters": sizes.clusters,
                "long side": self.long_side,
                "multiple of sides": self.side_multiple,
                "shortest side": self.min_side,
            }
        )

    def to_json(self) -> str:
        """Serialise; `from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read what `to_json` wrote. ValueError if it is not such a text."""
        try:
            fields = json.loads(text)
            fields["sizes"] = Sizes(**fields["sizes"])
            fields["untrained"] = tuple(fields["untrained"])
            return cls(**fields)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"not a Landseer profile: {error}; export the models again with this release") from error
