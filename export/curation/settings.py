"""Settings that decide whether two pictures match."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.export.curation.errors import CurationError


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """Settings of keypoints and verification. Deep Image Retrieval and CiDeR print none of them; all are our choice."""

    side: int = 640
    """Longer side in pixels to which larger pictures are reduced; smaller ones keep their size."""
    keypoints: int = 1000
    """Number of strongest keypoints kept per picture."""
    ratio: float = 0.8
    """Maximum ratio of the distances to the nearest and second nearest descriptor (Lowe 2004, section 7.1)."""
    pixels: float = 4.0
    """Maximum error of an inlier under the affine model, in pixels of the reduced picture."""
    inliers: int = 12
    """Minimum inliers of a match. docs/research/data.md says how many unrelated pictures reach."""
    trials: int = 5000
    """Maximum RANSAC trials."""
    seed: int = 0
    """RANSAC seed."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {value}; expected {expected}"
            for name, value, right, expected in (
                ("side", self.side, self.side >= 32, "at least 32 pixels"),
                ("keypoints", self.keypoints, self.keypoints >= 16, "at least 16"),
                ("ratio", self.ratio, 0 < self.ratio <= 1, "more than 0, at most 1"),
                ("pixels", self.pixels, self.pixels > 0, "more than 0"),
                ("inliers", self.inliers, self.inliers >= 4, "at least 4: three points fit any affine model"),
                ("trials", self.trials, self.trials >= 1, "at least 1"),
            )
            if not right
        ]
        if wrong:
            raise CurationError(f"cannot match with {wrong[0]}")
