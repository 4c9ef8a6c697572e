"""A query with its vectors and features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.errors import LocalFeaturesMissing
from landseer.ensemble.index.selection import Selecting
from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.keypoints.query_keypoints import QueryKeypoints
from landseer.ensemble.search.describe import DescribedPicture
from landseer.ensemble.store.local_features import LocalFeatures


@dataclass(frozen=True, kw_only=True)
class ResolvedQuery:
    """A query with its vectors and features."""

    vector: NDArray[np.float32]
    """[D], unit norm."""
    expanded: NDArray[np.float32] | None = None
    """[D], expanded by LAttQE, once a second search ran by it. Others are not sure enough to say what is near."""
    query_vector: NDArray[np.float32] | None = None
    """[P], unit norm, for co-attention; None for a raw descriptor."""
    key: int | None = None
    """Its key if it is indexed: it is excluded from its own hits."""
    picture: DescribedPicture | None = None
    """If the query is a picture."""
    local_features: LocalFeatures | None = None
    """Deep ones, if the plan needs them and the picture has them."""
    keypoints: QueryKeypoints | None = None
    """If the plan needs them and the picture has them."""
    patches: Patches | None = None
    """If the plan needs them and the picture has them."""
    selection: Selecting | None = None
    """The pictures that are searched; None for all."""

    def needed_local_features(self) -> LocalFeatures:
        """Return the deep local features. LocalFeaturesMissing."""
        if self.local_features is None:
            raise LocalFeaturesMissing("the query picture was indexed without local features; index it again")
        return self.local_features

    def needed_keypoints(self) -> QueryKeypoints:
        """Return the keypoints. LocalFeaturesMissing."""
        if self.keypoints is None:
            was_sent = "the keypoints of the query picture were not found, as the degradation of `keypoints` says"
            was_indexed = "the query picture was indexed without keypoints; index it again"
            raise LocalFeaturesMissing(was_indexed if self.picture is None else was_sent)
        return self.keypoints
