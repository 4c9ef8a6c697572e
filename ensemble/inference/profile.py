"""The profile: which models are served, and how pictures are prepared for them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from landseer.ensemble.inference.contracts import DEFAULT_DETECTOR, MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, Sizes


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Set at export, and recorded in the manifest, in Triton's model configuration and in the store.

    Vectors can be compared only if their profiles have the same `fingerprint`.
    """

    backbone: str
    weights_sha256: str
    """Of the weights of the trunk and of all heads that affect stored vectors."""
    sizes: Sizes
    descriptor: str = "gem"
    """The head that computes the global descriptor: gem, rmac, rmac-rpn, cider, two-map."""
    detector: str = DEFAULT_DETECTOR
    """A key of `DETECTOR_INPUTS`. It affects no vectors, so it is not in the fingerprint."""
    detector_sha256: str = ""
    """Of the detector's trained weights; empty if there are none."""
    locals_sha256: str = ""
    """Of the weights that affect local descriptors: trunk and projection; empty if there are none.

    Not in the fingerprint, because it does not matter to a store without local features."""
    patches_sha256: str = ""
    """Of the weights that affect patches: trunk and projection; empty if there are none. Not in the fingerprint."""
    long_side: int = 640
    """Pictures are resized so that their longer side has this many pixels."""
    side_multiple: int = SIDE_MULTIPLE
    min_side: int = MIN_SIDE
    max_side: int = MAX_SIDE
    untrained: tuple[str, ...] = ()
    """Parts with random weights, never trained: whitening, detector, lattqe and others."""
    version: str = "1"
    """The model version: the folder under each model of the repository."""

    @property
    def fingerprint(self) -> str:
        """What two comparable vectors must share: models and preprocessing, not versions or request limits."""
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
        """Serialise for `from_json`."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Read what `to_json` wrote. ValueError for other text."""
        try:
            fields = json.loads(text)
            fields["sizes"] = Sizes(**fields["sizes"])
            fields["untrained"] = tuple(fields["untrained"])
            return cls(**fields)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"not a Landseer profile: {error}; export the models again with this release") from error
