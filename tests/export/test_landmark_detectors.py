from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet50, resnet101
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign

from landseer.ensemble.inference.contracts import IMAGE, Graph, Sizes, graphs
from landseer.export.engines import ENGINES
from landseer.export.examples import photos
from landseer.export.models.landmark_detectors import (
    LANDMARK_DETECTORS,
    LandmarkDetector,
    TwoStage,
    faster_rcnn,
    pyramid_pooled,
    ssdlite,
    start_from,
)
from landseer.export.models.torch_file import WeightsError
from landseer.export.parity import boxes_iou
from landseer.export.to_onnx import write_onnx

SIZES = Sizes(channels=1280)
GRAPH = Graph(
    name="detector",
    inputs=(IMAGE,),
    outputs=graphs(SIZES)["detector"].outputs,
    max_batch=8,
    half_precision=False,
)


def normalised(network: Any) -> None:
    """Give every BatchNorm the statistics of photographs, or random weights would see nothing in any of them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        maps = network.train().backbone(torch.from_numpy(photos(320, 320, 6)).permute(0, 3, 1, 2).float() / 127.5 - 1)
        network.head(list(maps.values()))
    network.eval()


@pytest.fixture(scope="module")
def single_shot() -> LandmarkDetector:
    torch.manual_seed(0)
    detector = ssdlite(None, seed=0, sizes=SIZES)
    normalised(detector.network)
    return detector


@pytest.fixture(scope="module")
def two_stage() -> TwoStage:
    """As `faster_rcnn` makes it, but small: one layer for each map, and pictures of 160 pixels.

    Each operation after the resizing takes the exporter a while: its sizes are formulas of the picture's.
    """
    torch.manual_seed(0)
    channels, strides = (3, 16, 24, 32, 40), (4, 2, 2, 2)
    body = nn.Sequential(
        OrderedDict(
            (f"layer{i}", nn.Sequential(nn.Conv2d(*channels[i : i + 2], stride, stride=stride), nn.ReLU()))
            for i, stride in enumerate(strides)
        )
    )
    network = FasterRCNN(
        BackboneWithFPN(body, {f"layer{i}": str(i) for i in range(4)}, list(channels[1:]), 32),
        num_classes=2,
        min_size=120,
        max_size=160,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=40,
        box_score_thresh=0.1,
    )
    with torch.no_grad():
        for layer, factor in (
            (network.rpn.head.cls_logits, 10),
            (network.rpn.head.bbox_pred, 3),
            (network.roi_heads.box_predictor.cls_score, 5),
            (network.roi_heads.box_predictor.bbox_pred, 5),
        ):
            layer.weight *= factor
    return TwoStage(network=network, sizes=SIZES).eval()


@pytest.fixture(params=["single_shot", "two_stage"])
def detector(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(240, 320), (333, 217), (64, 1600), (64, 64)])
def test_boxes_are_torchvisions_own(detector: Any, height: int, width: int) -> None:
    image = torch.from_numpy(photos(height, width, 2))
    got = detector(image)
    expected = detector.network([picture.permute(2, 0, 1).float() / 255 for picture in image])
    for i, found in enumerate(expected):
        count = min(len(found["boxes"]), SIZES.boxes)
        assert got.box_count[i].item() == count > 0
        torch.testing.assert_close(got.boxes[i, :count], found["boxes"][:count], rtol=1e-3, atol=0.05)
        torch.testing.assert_close(got.box_scores[i, :count], found["scores"][:count], rtol=1e-3, atol=1e-4)
        assert not got.boxes[i, count:].any() and not got.box_scores[i, count:].any()


@torch.no_grad()
def test_a_batch_gives_what_one_at_a_time_gives(detector: Any) -> None:
    image = torch.from_numpy(photos(96, 128, 4))
    together = detector(image)
    for i in range(4):
        alone = detector(image[i : i + 1])
        torch.testing.assert_close(together.boxes[i], alone.boxes[0], rtol=1e-3, atol=0.05)


@torch.no_grad()
def test_the_threshold_can_leave_nothing(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = getattr(detector.network, "roi_heads", detector.network)
    monkeypatch.setattr(holder, "score_thresh", 1.0)
    got = detector(torch.from_numpy(photos(96, 128, 2)))
    assert got.box_count.tolist() == [[0], [0]]
    assert not got.boxes.any() and not got.box_scores.any()


def test_an_exported_detector_equals_eager_at_several_sizes(two_stage: TwoStage, tmp_path: Path) -> None:
    """The other one is exported in test_detectors_served.py, and compared there."""
    path, detector = tmp_path / "model.onnx", two_stage
    write_onnx(detector, GRAPH, {"image": photos(160, 128, 2)}, path, opset=20)
    runs = {name: ENGINES[name](path) for name in ("onnxruntime-fp32", "openvino-fp32")}
    for batch, height, width in ((1, 240, 320), (3, 333, 217), (1, 64, 1600), (8, 64, 64)):
        image = photos(height, width, batch)
        with torch.no_grad():
            expected = {name: value.numpy() for name, value in detector(torch.from_numpy(image))._asdict().items()}
        for name, run in runs.items():
            got = run({"image": image})
            where = f"{name} {batch} x {height}x{width}"
            assert boxes_iou(expected, got) > 0.999, where
            np.testing.assert_allclose(got["box_scores"], expected["box_scores"], atol=1e-3, err_msg=where)
            np.testing.assert_array_equal(got["box_count"], expected["box_count"], err_msg=where)


def test_regions_are_pooled_from_the_map_that_torchvision_takes() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 4, 512 // s, 512 // s, generator=generator) for s in (4, 8, 16, 32)]
    corner = torch.rand(2, 30, 2, generator=generator) * 256
    side = 2 ** (torch.rand(2, 30, 2, generator=generator) * 6 + 2)
    boxes = torch.cat([corner, corner + side], dim=-1)
    pooler = MultiScaleRoIAlign([str(i) for i in range(4)], 7, 2)
    expected = pooler({str(i): m for i, m in enumerate(maps)}, list(boxes), [(512, 512)] * 2)
    torch.testing.assert_close(pyramid_pooled(maps, boxes), expected)


def test_weights_are_interchangeable_with_torchvision(tmp_path: Path) -> None:
    networks = {
        "ssdlite": ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2),
        "faster_rcnn": fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2),
    }
    for name, network in networks.items():
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        loaded = LANDMARK_DETECTORS[name](tmp_path / "weights.pth", seed=0, sizes=SIZES).network.state_dict()
        for key, value in network.state_dict().items():
            # BatchNorm's step counter, which a frozen one has not.
            assert key.endswith("num_batches_tracked") or torch.equal(loaded[key], value), key


def test_weights_of_another_network_or_number_of_classes_are_refused(tmp_path: Path) -> None:
    of_coco = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    torch.save(of_coco.state_dict(), tmp_path / "coco.pth")
    with pytest.raises(WeightsError, match="does not fit SSD"):
        ssdlite(tmp_path / "coco.pth", seed=0, sizes=SIZES)
    with pytest.raises(WeightsError, match="does not fit FasterRCNN"):
        faster_rcnn(tmp_path / "coco.pth", seed=0, sizes=SIZES)


def test_the_seed_decides_the_weights_and_nothing_else() -> None:
    before = torch.get_rng_state()
    first, again, other = (ssdlite(None, seed=seed, sizes=SIZES).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "network.head.regression_head.module_list.0.1.weight"
    assert not torch.equal(first[name], other[name])


def test_training_starts_from_a_detector_of_other_classes_or_from_its_trunk(tmp_path: Path) -> None:
    of_coco = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    torch.save(of_coco.state_dict(), tmp_path / "coco.pth")
    detector = ssdlite(None, seed=0, sizes=SIZES)
    assert start_from(detector, tmp_path / "coco.pth") > 300
    for name, value in detector.network.state_dict().items():
        assert "classification_head" in name or torch.equal(value, of_coco.state_dict()[name]), name
    trunk = resnet50()
    torch.save(trunk.state_dict(), tmp_path / "resnet50.pth")
    two_stage = faster_rcnn(None, seed=0, sizes=SIZES)
    start_from(two_stage, tmp_path / "resnet50.pth")
    for name, value in two_stage.network.backbone.body.state_dict().items():
        assert torch.equal(value, trunk.state_dict()[name]), name


def test_training_starts_from_nothing_that_does_not_fit(tmp_path: Path) -> None:
    torch.save(resnet101().state_dict(), tmp_path / "resnet101.pth")
    for detector in (ssdlite(None, seed=0, sizes=SIZES), faster_rcnn(None, seed=0, sizes=SIZES)):
        before = {name: value.clone() for name, value in detector.state_dict().items()}
        with pytest.raises(WeightsError, match="of its weights do not fit"):
            start_from(detector, tmp_path / "resnet101.pth")
        assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
