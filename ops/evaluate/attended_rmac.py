"""CiDeR's attention with regional max pooling and regional whitening in place of its GeM and FC.

What CiDeR localises, AL · SC · BE of the feature map, is pooled as R-MAC pools a feature map. A descriptor of research,
which no export has.
"""

from __future__ import annotations

from torch import Tensor

from landseer.export.models.cider import CiDeR
from landseer.export.models.rmac import GridRMAC

ATTENDED_RMAC = "cider-rmac"
"""Its kind in files of parts."""


class AttendedRMAC(GridRMAC):
    """R-MAC over the fixed grid, of a feature map weighed by CiDeR's attention."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.cider = CiDeR(channels)

    def forward(self, feature_map: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Describe. feature_map: [B, C, h, w] of a picture [height, width] → unit [B, C], attention [B, h, w]."""
        localised, attention = self.cider.localise(feature_map)
        return super().forward(localised, height, width)[0], attention

    def regions(self, feature_map: Tensor, height: int, width: int) -> Tensor:
        """Return the unit vectors of the regions of all pictures, for learning the projection. → [R', C]."""
        return super().regions(self.cider.localise(feature_map)[0], height, width)
