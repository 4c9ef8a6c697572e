"""What decides whether two pictures match."""

from __future__ import annotations

from dataclasses import dataclass

from landseer.export.curation.errors import CurationError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of keypoints and of verification. Neither Deep Image Retrieval nor CiDeR prints any of them: these are ours."""

    side: int = 640
    """The longer side in pixels to which larger pictures are reduced; smaller ones stay as they are."""
    keypoints: int = 1000
    """The strongest of a picture."""
    ratio: float = 0.8
    """Of the distances to the nearest and the second nearest descriptor (Lowe 2004, section 7.1)."""
    pixels: float = 4.0
    """How far from where the affine model puts it a point may be, in pixels of the reduced picture."""
    inliers: int = 12
    """Fewer points that agree are no match. What unrelated pictures reach is in docs/research/data.md."""
    trials: int = 5000
    """Of RANSAC, at most."""
    seed: int = 0
    """Of RANSAC's draws."""

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
