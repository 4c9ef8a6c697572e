"""The backbones that can be exported.

To add one, write a function that loads it beside those of its kind, and add a line to `BACKBONES`.
"""

from __future__ import annotations

from landseer.export.models.lites import LITES, either_lite, of_instances
from landseer.export.models.resnets import either_resnet
from landseer.export.models.trunk import BackboneKind
from landseer.export.models.vit_trunks import either_vit
from landseer.export.models.vits import VITS

DEFAULT_BACKBONE, IMAGENET = "efficientnet_lite0_instance", "efficientnet_lite0"
"""The default, and the trunk that it was trained from: with ImageNet weights, for trainings that start from such."""

BACKBONES: dict[str, BackboneKind] = {
    **{lite.name: either_lite(lite) for lite in LITES},
    DEFAULT_BACKBONE: of_instances(LITES[0]),
    "resnet50": either_resnet("resnet50"),
    "resnet101": either_resnet("resnet101"),
    **{vit.name: either_vit(vit) for vit in VITS},
}
