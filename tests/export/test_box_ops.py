import math

import numpy as np
import pytest
import torch
import torchvision
from shared_files import reference
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from landseer.export.models.box_ops import (
    ABSENT,
    anchor_shapes,
    anchors_at,
    at_least,
    clip,
    decode,
    encode,
    grid,
    leading,
    ranked,
    unsuppressed,
)


def random_boxes(*shape: int, seed: int, span: float = 600.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * span
    return torch.cat([corner, corner + 5 + torch.rand(*shape, 2, generator=generator) * 200], dim=-1)


def random_scores(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed + 1000))


def greedily_kept(boxes: Tensor, scores: Tensor, overlap: float) -> list[int]:
    """The definition: take the best, drop what overlaps it, again."""
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):
        if scores[i] >= 0 and all(float(box_iou(boxes[i : i + 1], boxes[j : j + 1])) <= overlap for j in kept):
            kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_suppression_is_the_greedy_one(overlap: float) -> None:
    boxes, scores = random_boxes(3, 60, seed=0), random_scores(3, 60, seed=0)
    scores[1, ::3] = ABSENT
    scores[2] = ABSENT
    keep = unsuppressed(boxes, scores, overlap)
    for i in range(3):
        assert torch.nonzero(keep[i]).flatten().tolist() == greedily_kept(boxes[i], scores[i], overlap)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_suppression_equals_the_reference(overlap: float) -> None:
    arrays = reference("library_blocks.npz")
    boxes, scores = (torch.from_numpy(arrays[f"nms_{name}"]) for name in ("boxes", "scores"))
    keep = unsuppressed(boxes[None] - boxes.min(), scores[None], overlap)[0]
    assert set(torch.nonzero(keep).flatten().tolist()) == set(arrays[f"nms_keep_iou{overlap}"].tolist())


@pytest.mark.parametrize("groups", [1, 5])
def test_a_batch_and_its_groups_are_suppressed_as_each_alone(groups: int) -> None:
    boxes, scores = random_boxes(8, groups * 200, seed=1, span=1000), random_scores(8, groups * 200, seed=1)
    together = unsuppressed(boxes, scores, 0.5, groups=groups).reshape(-1, 200)
    alone = [
        unsuppressed(b[None], s[None], 0.5)[0]
        for b, s in zip(boxes.reshape(-1, 200, 4), scores.reshape(-1, 200), strict=True)
    ]
    assert torch.equal(together, torch.stack(alone))


def test_moving_apart_changes_no_decision() -> None:
    # Pairs within a thousandth of the threshold: what rounding after the move would decide otherwise.
    widths = 100.0 * torch.linspace(0.499, 0.501, 101)
    flat = torch.tensor([[0.0, 0.0, 100.0, 100.0]]).expand(101, 4).clone()
    narrow = flat.clone()
    narrow[:, 2] = widths
    boxes, scores = torch.stack([flat, narrow], dim=1) + 0.37, torch.tensor([[0.9, 0.8]]).expand(101, 2)
    for i in range(0, 101, 8):
        alone = torch.cat([unsuppressed(boxes[j : j + 1], scores[j : j + 1], 0.5) for j in range(i, min(i + 8, 101))])
        assert torch.equal(unsuppressed(boxes[i : i + 8], scores[i : i + 8], 0.5), alone)


def test_ranked_boxes_are_the_best_kept_then_zeros() -> None:
    boxes, scores = random_boxes(2, 6, seed=2), random_scores(2, 6, seed=2)
    keep = torch.tensor([[True, False, True, True, False, False], [False] * 6])
    got = ranked(boxes, scores, keep, 4)
    order = torch.where(keep, scores, ABSENT)[0].argsort(descending=True)[:3]
    assert got.number.tolist() == [[3], [0]]
    torch.testing.assert_close(got.boxes[0, :3], boxes[0, order])
    assert (got.scores[0, :3] == scores[0, order]).all()
    assert not got.boxes[0, 3:].any() and not got.boxes[1].any() and not got.scores[1].any()


def test_leading_takes_more_than_there_is() -> None:
    top, index, real = leading(torch.tensor([[0.2, 0.9]]), 4)
    assert index[0].tolist()[:2] == [1, 0]
    assert real.tolist() == [[True, True, False, False]]
    assert index.max() <= 1 and (top[:, 2:] < -1e29).all()


def test_encoding_and_decoding_are_torchvisions_and_inverse() -> None:
    boxes, anchors, weights = random_boxes(50, seed=3), random_boxes(50, seed=4), (10.0, 10.0, 5.0, 5.0)
    offsets = encode(boxes, anchors, weights)
    coder = BoxCoder(weights)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(offsets, anchors, weights), coder.decode_single(offsets, anchors))
    torch.testing.assert_close(decode(offsets, anchors, weights), boxes, rtol=1e-4, atol=1e-3)
    assert torch.isfinite(decode(torch.full((1, 4), 1e4), anchors[:1])).all()


def test_anchors_have_their_area_and_ratio_and_torchvisions_order() -> None:
    sizes, ratios = (64.0, 128.0), (0.5, 1.0, 2.0)
    shapes = anchor_shapes(sizes, ratios)
    sides = shapes[:, 2:] - shapes[:, :2]
    torch.testing.assert_close(sides.prod(dim=1).sqrt(), torch.tensor(sizes * 3))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor(ratios).repeat_interleave(2))
    generator = AnchorGenerator((sizes,), (ratios,))
    assert torch.equal(shapes.round(), generator.cell_anchors[0])
    stride = torch.tensor(32)
    expected = generator.grid_anchors([[3, 5]], [[stride, stride]])[0]
    assert torch.equal(anchors_at(grid(torch.zeros(1, 1, 3, 5)) * 32, shapes.round()), expected)


def test_clipping_is_to_each_picture_of_the_batch() -> None:
    boxes = torch.tensor([[-5.0, -5.0, 900.0, 900.0]]).expand(2, 1, 4)
    got = clip(boxes, torch.tensor([[480, 640], [640, 352]], dtype=torch.int32))
    assert got[:, 0].tolist() == [[0, 0, 640, 480], [0, 0, 352, 640]]


def test_thin_boxes_are_absent() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 10.0]]])
    assert at_least(boxes, torch.tensor([[0.5, 0.6]]), 16.0).tolist() == [[0.5, ABSENT]]


def test_region_pooling_is_the_one_of_onnx() -> None:
    arrays = reference("library_blocks.npz")
    regions = np.c_[np.zeros(len(arrays["roi_boxes_xyxy"])), arrays["roi_boxes_xyxy"]].astype(np.float32)
    scale = float(arrays["roi_spatial_scale"])
    for aligned in (False, True):
        got = torchvision.ops.roi_align(
            torch.from_numpy(arrays["roi_feat"]), torch.from_numpy(regions), 3, scale, 2, aligned
        )
        expected = torch.from_numpy(arrays[f"roi_align_aligned{int(aligned)}_out3_sr2"])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_growth_is_bounded_as_in_faster_rcnn() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    grown = decode(torch.tensor([[0.0, 0.0, 99.0, 99.0]]), anchor)
    assert math.isclose(float(grown[0, 2] - grown[0, 0]), 1000.0, rel_tol=1e-4)
