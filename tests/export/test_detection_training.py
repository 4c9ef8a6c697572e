from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import box_iou

from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.datasets.photograph import Box, Photograph
from landseer.export.models.box_ops import encode
from landseer.export.models.landmark_detectors import TwoStage, ssdlite
from landseer.export.models.rpn import ProposalDetector, RegionProposals
from landseer.export.models.trunk import Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.photographs import photographs
from landseer.export.training.box_task import MOST_TARGETS, boxed
from landseer.export.training.detection import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    DetectionLoss,
    LandmarkLoss,
    ProposalLoss,
    Sampling,
    annotated,
    matches,
    proposal_losses,
)
from landseer.export.training.pasted import COVERED, Annotated, PasteRanges, pasted, scene
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.trunk_views import trunk_runner

SIZES = Sizes(channels=1280)
NO_BOX = np.zeros((0, 4), np.float32)
PHOTOGRAPHS = [Annotated(pixels=pixels, boxes=NO_BOX) for pixels in photographs()]


def pasted_picture(seed: int, index: int, *, height: int, width: int) -> Annotated:
    """One of the photographs pasted into another."""
    draw = np.random.default_rng((seed, index))
    thing, background = (PHOTOGRAPHS[i].pixels for i in draw.choice(len(PHOTOGRAPHS), 2, replace=False))
    return pasted(thing, background, draw, height=height, width=width)


def planted(side: int) -> list[Annotated]:
    return [pasted_picture(1, i, height=side, width=side) for i in range(2)]


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return BACKBONES["efficientnet_lite0"].load(None, "auto").trunk


def trained(loss: DetectionLoss, batch: list[Annotated], *, steps: int, rate: float = 1e-3) -> list[float]:
    """Adam on one batch, by a fixed seed. Returns the losses."""
    torch.manual_seed(0)
    optimiser, values = torch.optim.Adam(list(loss.parameters()), lr=rate), []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(batch)
        value.backward()
        optimiser.step()
        values.append(value.item())
    return values


@torch.no_grad()
def best_overlap(detector: nn.Module, picture: Annotated) -> float:
    found = detector.eval()(torch.from_numpy(picture.pixels)[None])
    return float(box_iou(found.boxes[0, :1], torch.from_numpy(picture.boxes)))


def test_proposals_learn_to_find_what_was_planted(trunk: Trunk) -> None:
    rpn, batch = RegionProposals.untrained(1280, seed=0, hidden=64), planted(256)
    frozen = {name: value.clone() for name, value in trunk.state_dict().items()}
    values = trained(ProposalLoss(trunk=trunk, rpn=rpn), batch, steps=70)
    assert values[-1] < 0.05 * values[0]
    detector = ProposalDetector(trunk=trunk, rpn=rpn, sizes=SIZES)
    assert min(best_overlap(detector, picture) for picture in batch) > 0.7
    assert all(torch.equal(frozen[name], value) for name, value in trunk.state_dict().items())


def test_training_of_proposals_is_decided_by_the_seed(trunk: Trunk) -> None:
    runs = []
    for _ in range(2):
        rpn = RegionProposals.untrained(1280, seed=0, hidden=16)
        runs.append(trained(ProposalLoss(trunk=trunk, rpn=rpn), planted(128), steps=3))
    assert runs[0] == runs[1]


def test_a_faster_trunk_gives_the_same_loss() -> None:
    # Of one layer: EfficientNet takes twenty seconds to trace.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, 8, 33, stride=32, padding=16), nn.ReLU())
    trunk = Trunk(features=features, classifier=nn.Identity(), channels=8, mean=(127.0,) * 3, std=(60.0,) * 3).eval()
    rpn, batch = RegionProposals.untrained(8, seed=0, hidden=16), planted(128)
    losses = []
    for run in (None, trunk_runner(trunk, "f32")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            losses.append(ProposalLoss(trunk=trunk, rpn=rpn, run=run)(batch).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_pictures_without_a_box_teach_that_nothing_is_there(trunk: Trunk) -> None:
    rpn = RegionProposals.untrained(1280, seed=0, hidden=16)
    empty = [Annotated(pixels=picture.pixels, boxes=NO_BOX) for picture in planted(128)]
    values = trained(ProposalLoss(trunk=trunk, rpn=rpn), empty, steps=4)
    assert values[-1] < values[0]


def test_anchors_are_matched_as_torchvision_matches_them() -> None:
    rpn = RegionProposals(4)
    anchors = rpn.anchors(torch.zeros(1, 4, 15, 20), torch.tensor([[480, 640]], dtype=torch.int32))[0]
    boxes = torch.tensor([[100.0, 120.0, 260.0, 300.0], [400.0, 10.0, 470.0, 60.0]])
    labels, matched = matches(anchors, boxes, Sampling(anchors=2 * len(anchors)))
    expected = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(boxes, anchors))
    assert torch.equal(labels == POSITIVE, expected >= 0)
    assert torch.equal(labels == NEGATIVE, expected == Matcher.BELOW_LOW_THRESHOLD)
    positive = labels == POSITIVE
    assert positive.any() and torch.equal(matched[positive], expected[positive])


def test_the_sample_has_at_most_half_positive_and_is_filled_up() -> None:
    anchors = torch.tensor([[0.0, 0.0, 100.0, 100.0]]).expand(50, 4)
    elsewhere = anchors + 500.0
    labels, _ = matches(torch.cat([anchors, elsewhere]), anchors[:1], Sampling(anchors=20))
    assert [(labels == kind).sum().item() for kind in (POSITIVE, NEGATIVE, IGNORED)] == [10, 10, 80]
    labels, _ = matches(torch.cat([anchors[:3], elsewhere]), anchors[:1], Sampling(anchors=20))
    assert [(labels == kind).sum().item() for kind in (POSITIVE, NEGATIVE)] == [3, 17]


def test_the_loss_is_that_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(6, 2, generator=generator) * 100
    anchors, boxes = torch.cat([corner, corner + 50], dim=1), torch.cat([corner + 5, corner + 60], dim=1)
    logits, offsets = torch.randn(6, generator=generator), torch.randn(6, 4, generator=generator)
    labels = torch.tensor([POSITIVE, NEGATIVE, IGNORED, POSITIVE, NEGATIVE, IGNORED])
    objectness, regression = proposal_losses(logits, offsets, anchors, boxes, labels)
    p = torch.sigmoid(logits)
    assert objectness.item() == pytest.approx(-float(p[[0, 3]].log().sum() + (1 - p[[1, 4]]).log().sum()), rel=1e-5)
    gap = (offsets - encode(boxes, anchors))[[0, 3]].abs()
    assert regression.item() == pytest.approx(float(smooth(gap).sum()), rel=1e-5)


def smooth(gap: Tensor) -> Tensor:
    return torch.where(gap < 1 / 9, 4.5 * gap.pow(2), gap - 1 / 18)


def test_the_single_shot_detector_learns_to_find_what_was_planted() -> None:
    detector, batch = ssdlite(None, seed=0, sizes=SIZES), planted(320)
    for module in detector.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # torchvision's 0.03 is for thousands of steps: after these few, evaluation would still see the first ones.
            module.momentum = 0.4
    values = trained(LandmarkLoss(detector), batch, steps=26, rate=2e-3)
    assert values[-1] < 0.1 * values[0]
    assert min(best_overlap(detector, picture) for picture in batch) > 0.7


def test_the_two_stage_detector_learns() -> None:
    torch.manual_seed(0)
    network = FasterRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5),
        num_classes=2,
        min_size=128,
        max_size=160,
        rpn_post_nms_top_n_train=50,
        box_batch_size_per_image=16,
    )
    values = trained(LandmarkLoss(TwoStage(network=network, sizes=SIZES)), planted(128), steps=4, rate=1e-4)
    assert values[-1] < 0.9 * values[0]


def test_a_batch_that_cannot_be_learned_from_is_refused(trunk: Trunk) -> None:
    loss = ProposalLoss(trunk=trunk, rpn=RegionProposals(1280, hidden=8))
    with pytest.raises(ValueError, match="empty batch"):
        loss([])
    pixels = PHOTOGRAPHS[0].pixels[:64, :64]
    for box in ((10, 10, 10, 20), (-1, 0, 5, 5), (0, 0, 65, 64)):
        with pytest.raises(ValueError, match=r"picture 0 of the batch, 64 x 64, has boxes .* expected"):
            loss([Annotated(pixels=pixels, boxes=np.array([box], np.float32))])


def test_pasted_pictures_are_decided_by_seed_and_index() -> None:
    def make(seed: int, index: int) -> Annotated:
        return pasted_picture(seed, index, height=96, width=128)

    first, again = make(0, 3), make(0, 3)
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.pixels, make(0, 4).pixels)
    assert not np.array_equal(first.pixels, make(1, 3).pixels)


def test_boxes_are_around_what_was_pasted() -> None:
    """White on black, unlit: what is brighter than half is the object."""
    white, black = np.full((60, 90, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8)
    for seed in range(40):
        draw = np.random.default_rng(seed)
        got = pasted(white, black, draw, height=200, width=240, ranges=PasteRanges(light=0.0, feather=0.5))
        bright = np.argwhere(got.pixels[..., 0] > 127)
        (y0, x0), (y1, x1) = bright.min(axis=0), bright.max(axis=0) + 1
        assert got.pixels.shape == (200, 240, 3)
        np.testing.assert_allclose(got.boxes, [[x0, y0, x1, y1]], atol=2.0, err_msg=f"seed {seed}")


def test_a_tilted_thing_is_inside_its_box() -> None:
    white, black = np.full((60, 90, 3), 255, np.uint8), np.zeros((50, 50, 3), np.uint8)
    ranges = PasteRanges(light=0.0, feather=0.5, perspective=0.15, rounded=0.0)
    for seed in range(20):
        got = scene([white], black, np.random.default_rng(seed), height=200, width=240, ranges=ranges)
        bright = np.argwhere(got.pixels[..., 0] > 127)
        (y0, x0), (y1, x1) = bright.min(axis=0), bright.max(axis=0) + 1
        np.testing.assert_allclose(got.boxes, [[x0, y0, x1, y1]], atol=2.0, err_msg=f"seed {seed}")


def test_things_of_a_scene_do_not_cover_each_other() -> None:
    things, behind = [picture.pixels for picture in PHOTOGRAPHS[:4]], PHOTOGRAPHS[4].pixels
    counts = []
    for seed in range(12):
        boxes = torch.from_numpy(scene(things, behind, np.random.default_rng(seed), height=160, width=200).boxes)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        low, high = (torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:]))
        common = (high - low).clamp(min=0).prod(dim=2).fill_diagonal_(0)
        assert (common <= COVERED * torch.minimum(area[:, None], area[None]) + 1e-3).all()
        counts.append(len(boxes))
    assert min(counts) >= 1 and max(counts) > 1


def test_flat_targets_lie_in_a_photograph_without_boxes(tmp_path: Path) -> None:
    for number, picture in enumerate(PHOTOGRAPHS[:3]):
        Image.fromarray(picture.pixels).save(tmp_path / f"{number}.png")
    box = Box(x0=0.25, y0=0.25, x1=0.5, y1=0.75)
    shown = [Photograph(path=tmp_path / f"{number}.png", label="a") for number in range(2)]
    shots = Shots(
        photographs=[*shown, Photograph(path=tmp_path / "2.png", label="b", boxes=(box,))], profile=profile_of(256)
    )
    for seed in range(8):
        got = boxed(shots, 0, np.random.default_rng(seed), "targets")
        again = boxed(shots, 0, np.random.default_rng(seed), "targets")
        height, width = got.pixels.shape[:2]
        assert got.pixels.shape == shots.pixels(0).shape and np.array_equal(got.pixels, again.pixels)
        assert 1 <= len(got.boxes) <= MOST_TARGETS
        assert ((got.boxes[:, 2:] - got.boxes[:, :2]).max(axis=1) < 0.9 * min(height, width)).all()
        outside = np.ones((height, width), bool)
        for x0, y0, x1, y1 in got.boxes.astype(int):
            # Edges are blurred over 8 pixels, from one beyond the box, which ends where half of a target shows.
            outside[max(0, y0 - 10) : y1 + 10, max(0, x0 - 10) : x1 + 10] = False
        assert np.array_equal(got.pixels[outside], shots.pixels(0)[outside])
    assert len(boxed(shots, 2, np.random.default_rng(0), "targets").boxes) == 1
    assert not np.array_equal(
        boxed(shots, 0, np.random.default_rng(0), "photographs").pixels,
        boxed(shots, 0, np.random.default_rng(0), "targets").pixels,
    )


def test_every_pasted_box_lies_within_its_picture_and_is_large_enough_to_learn() -> None:
    for index in range(30):
        got = pasted_picture(2, index, height=120, width=160)
        assert got.boxes.shape == (1, 4)
        (x0, y0, x1, y1) = got.boxes[0].tolist()
        assert 0 <= x0 < x1 <= 160 and 0 <= y0 < y1 <= 120
        assert max(x1 - x0, y1 - y0) >= 0.1 * 120


def test_photographs_come_at_the_served_size_with_their_boxes(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    cv2.rectangle(pixels, (50, 25), (99, 74), (255, 255, 255), -1)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    box = Box(x0=0.25, y0=0.25, x1=0.5, y1=0.75)
    profile = Profile(
        backbone="efficientnet_lite0", weights_sha256="", sizes=SIZES, long_side=640, untrained=(), version="1"
    )
    got = annotated(Photograph(path=tmp_path / "photo.png", label="square", boxes=(box,)), profile)
    assert got.pixels.shape == (320, 640, 3)
    assert got.boxes.tolist() == [[160, 80, 320, 240]]
    assert got.pixels[80:240, 160:320].mean() > 250
    without = annotated(Photograph(path=tmp_path / "photo.png", label="square"), profile)
    assert without.boxes.shape == (0, 4) and without.pixels.shape == (320, 640, 3)
