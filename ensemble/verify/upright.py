"""One affine map from a query's patches to a candidate's: fast spatial matching (Philbin et al. 2007).

Patches have a size and no orientation, so a match proposes a scale and a shift. The one that most matches agree with is
refined on them to an affine map. There is no homography: things are rarely flat where patches are needed, and patches
lie on a grid, so that a homography fits what is not there. Maps that no camera makes are rejected, as for keypoints.
"""

from __future__ import annotations

import numpy as np

from landseer.ensemble.keypoints.patches import Patches
from landseer.ensemble.verify.affine import FEWEST, refine
from landseer.ensemble.verify.fast_spatial import Fit
from landseer.ensemble.verify.matching import Matches
from landseer.ensemble.verify.proposals import Oriented, proposed

COARSE, FINE = 40.0, 16.0
"""Largest error of an inlier in pixels of the candidate: of a scale and shift from one match, and of the affine map."""
LIMITS = np.array([COARSE, COARSE, FINE, FINE])
"""Of an inlier, each time that the map is refined."""
LARGER = 2.3
"""Largest factor between the scale of a match and that of the map it fits; 1.5 times that for the affine map."""


def fit_upright(query: Patches, candidate: Patches, matches: Matches) -> Fit:
    """Fit a map to mutual matches of patches; without inliers if there is none."""
    count = len(matches)
    nothing = Fit(matches=matches.take(slice(0)), map=None, most=count)
    some = proposed(matches.rows, _oriented(query), _oriented(candidate), errors=(COARSE, LARGER), limits=(count, 1))
    if not len(some.agreeing):
        return nothing
    inliers, alike, map = some.agreeing[0], np.empty(count, np.bool_), np.empty((2, 3))
    refined = refine()((some.points, some.sizes), LIMITS, 1.5 * LARGER, (inliers, alike), map)
    if refined < len(LIMITS) or np.count_nonzero(inliers) < FEWEST:
        return nothing
    return Fit(matches=matches.take(inliers), map=np.vstack([map, [0.0, 0.0, 1.0]]), most=count)


def _oriented(patches: Patches) -> Oriented:
    positions, sizes = (np.ascontiguousarray(some, np.float32) for some in (patches.positions, patches.sizes))
    return positions, sizes, np.zeros(len(patches), np.float32)
