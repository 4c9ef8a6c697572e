import copy

import pytest
import torch
from shared_files import shared

from landseer.export.models.lites import LITES, Lite
from landseer.export.models.trunk import Loaded, Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.photographs import NAMES, photographs
from landseer.export.training.instance_tuning import fold_norms

# ImageNet classes that are right for each photograph.
CLASSES = {"chelsea.png": {281, 282, 285}, "coffee.png": {967, 968}, "motorcycle_left.png": {665, 670}}


def top_class(trunk: Trunk, name: str) -> int:
    pixels = dict(zip(NAMES, photographs(side=224), strict=True))[name]
    with torch.no_grad():
        feature_map = trunk(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
        return int(trunk.classifier(feature_map.mean(dim=(-2, -1))).argmax())


@pytest.fixture(scope="module")
def resnet50() -> Loaded:
    return BACKBONES["resnet50"].load(shared("weights/resnet50_v1_imagenet.pth"), "auto")


@pytest.mark.parametrize("lite", LITES, ids=lambda lite: lite.name)
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_lite_trunks_classify_photographs(lite: Lite, name: str) -> None:
    assert top_class(BACKBONES[lite.name].load(None, "auto").trunk, name) in CLASSES[name]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_resnet50_v1_is_recognised_and_classifies_photographs(resnet50: Loaded, name: str) -> None:
    assert resnet50.variant == "v1"
    assert top_class(resnet50.trunk, name) in CLASSES[name]


@pytest.mark.parametrize("name", [*(lite.name for lite in LITES), "resnet50"])
def test_a_trunk_is_its_front_and_its_last_blocks(resnet50: Loaded, name: str) -> None:
    loaded = resnet50 if name == "resnet50" else BACKBONES[name].load(None, "auto")
    trunk, x = copy.deepcopy(loaded.trunk), torch.rand(1, 3, 96, 128) * 255
    with torch.no_grad():
        expected, (front, back) = trunk(x), trunk.split()
        torch.testing.assert_close(back(front((x - trunk.mean) / trunk.std)), expected)
        fold_norms(back)
        torch.testing.assert_close(trunk(x), expected, atol=1e-3, rtol=1e-3)
        assert torch.equal(loaded.trunk(x), expected)
    trunk.drop_classifier()
    assert not any("fc." in key or "classifier." in key for key in trunk.state_dict())
