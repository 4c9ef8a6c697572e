import pytest
import torch
from shared_files import shared

from landseer.export.models.lites import LITES
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES


@pytest.fixture(scope="module")
def v1() -> Loaded:
    return BACKBONES["resnet50"].load(shared("weights/resnet50_v1_imagenet.pth"), "auto")


def test_the_stride_makes_another_network_of_the_same_weights(v1: Loaded) -> None:
    other = BACKBONES["resnet50"].load(shared("weights/resnet50_v1_imagenet.pth"), "v1.5")
    x = torch.rand(1, 3, 96, 96) * 255
    with torch.no_grad():
        a, b = v1.trunk(x), other.trunk(x)
    assert a.shape == b.shape == (1, 2048, 3, 3)
    assert torch.nn.functional.cosine_similarity(a.mean((2, 3)), b.mean((2, 3))).item() < 0.99


def test_weights_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(WeightsError, match="does not fit ResNet"):
        BACKBONES["resnet50"].load(LITES[0].weights(), "v1")
