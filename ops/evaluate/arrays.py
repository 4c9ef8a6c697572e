"""The arrays that describe a picture, as an evaluation caches them: without padding, some in half precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.keypoints.rootsift import QUERY_SIDE, SIDE
from landseer.ensemble.keypoints.shipped import shipped_codebook
from landseer.ensemble.pictures.pictures import Prepared
from landseer.ensemble.search.describe import whole_picture_boxes
from landseer.ops.backend.inprocess import Tensors
from landseer.ops.evaluate import keypoint_arrays

Arrays = dict[str, NDArray[Any]]

DESCRIPTOR, QUERY_VECTOR, CLUSTERS, BOXES = "descriptor", "query_vector", "clusters", "boxes"
FEATURES, POSITIONS, NORMS, LOCALS = "local_features", "local_positions", "local_norms", "local_descriptors"
SCALES = "local_scales"
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    DESCRIPTOR: (DESCRIPTOR,),
    QUERY_VECTOR: (QUERY_VECTOR,),
    CLUSTERS: ("clusters", "cluster_count"),
    FEATURES: ("local_features", "local_count"),
    POSITIONS: ("local_positions", "local_count"),
    NORMS: ("local_norms", "local_count"),
    SCALES: ("local_scales", "local_count"),
    LOCALS: ("local_descriptors", "local_count"),
    BOXES: ("boxes", "box_scores", "box_count"),
}
"""Which outputs of `describe_full` each array is made of."""
TYPES: Mapping[str, type[np.generic]] = {CLUSTERS: np.float16, FEATURES: np.float16, LOCALS: np.float16}
"""Of arrays that are not fp32. Local features take most of the space: 1.3 MB per picture with 1,280 channels."""


def outputs(names: Collection[str]) -> tuple[str, ...]:
    """Return the outputs of `describe_full` that these arrays are made of."""
    known = {**OUTPUTS, **keypoint_arrays.OUTPUTS}
    return tuple(dict.fromkeys(output for name in known if name in names for output in known[name]))


def arrays(names: Collection[str], tensors: Tensors, prepared: Prepared) -> Arrays:
    """Return the arrays of a picture without padding; boxes are [m, 5], as `whole_picture_boxes` returns them."""
    found = {name: _array(name, tensors, prepared) for name in names if name in OUTPUTS}
    return found | keypoint_arrays.keypoint_arrays(names, tensors, prepared)


def kept_as(name: str, profile: Profile) -> str:
    """Return the name of an array in the cache, with the models and sizes that `Profile.fingerprint` does not cover."""
    of = {LOCALS: (profile.locals_sha256,), BOXES: (profile.detector, profile.detector_sha256)}
    of |= {keypoint_arrays.PATCHES: (profile.patches_sha256,)}
    words = shipped_codebook().fingerprint
    of |= {keypoint_arrays.KEYPOINTS: (words, f"{SIDE} px")}
    of |= dict.fromkeys(keypoint_arrays.OF_QUERY, (words, f"{QUERY_SIDE} px"))
    return " ".join([name, *(part for part in of.get(name, ()) if part)])


def _array(name: str, tensors: Tensors, prepared: Prepared) -> NDArray[Any]:
    value, *counts = (tensors[output] for output in OUTPUTS[name])
    if name == BOXES:
        scores, count = counts
        return whole_picture_boxes(value[: count.item()], scores[: count.item()], prepared)
    rows = value[: counts[0].item()] if counts else value
    return rows.astype(TYPES.get(name, np.float32))
