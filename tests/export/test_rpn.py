from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from landseer.ensemble.inference.contracts import Graph, Sizes
from landseer.ensemble.inference.contracts import Tensor as Spec
from landseer.export.engines import ENGINES
from landseer.export.models.box_ops import decode
from landseer.export.models.rpn import ProposalDetector, RegionProposals
from landseer.export.models.trunks import BACKBONES
from landseer.export.to_onnx import Arrays, write_onnx

CHANNELS, PROPOSALS = 32, 64
GRAPH = Graph(
    name="rpn",
    inputs=(
        Spec(name="feature_map", dtype="float32", dims=(CHANNELS, -1, -1)),
        Spec(name="image_size", dtype="int32", dims=(2,)),
    ),
    outputs=(
        Spec(name="boxes", dtype="float32", dims=(PROPOSALS, 4)),
        Spec(name="scores", dtype="float32", dims=(PROPOSALS,)),
        Spec(name="number", dtype="int32", dims=(1,)),
    ),
    max_batch=8,
    half_precision=False,
)


def lively(seed: int = 0) -> RegionProposals:
    """Untrained, but with scores and boxes that differ from cell to cell."""
    rpn = RegionProposals.untrained(CHANNELS, seed=seed, proposals=PROPOSALS).eval()
    with torch.no_grad():
        rpn.conv.weight *= 20
        rpn.objectness.weight *= 4
        rpn.regression.weight *= 5
    return rpn


def inputs(batch: int, h: int, w: int) -> Arrays:
    rng = np.random.default_rng(h * w)
    size = np.tile(np.array([[h * 32, w * 32]], np.int32), (batch, 1))
    return {"feature_map": rng.standard_normal((batch, CHANNELS, h, w), dtype=np.float32), "image_size": size}


def tensors(arrays: Arrays) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays.values()]


@torch.no_grad()
def test_proposals_equal_the_steps_done_one_by_one() -> None:
    rpn, (feature_map, size) = lively(), tensors(inputs(2, 11, 20))
    got = rpn(feature_map, size)
    logits, offsets = rpn.predict(feature_map)
    for i in range(2):
        order = logits[i].argsort(descending=True)[:1000]
        boxes = decode(offsets[i], rpn.anchors(feature_map, size)[i])[order]
        boxes = torchvision.ops.clip_boxes_to_image(boxes, (352, 640))
        large = torchvision.ops.remove_small_boxes(boxes, 16.0)
        boxes, scores = boxes[large], logits[i][order][large].sigmoid()
        kept = torchvision.ops.nms(boxes, scores, 0.7)[:PROPOSALS]
        assert got.number[i].item() == len(kept)
        torch.testing.assert_close(got.boxes[i, : len(kept)], boxes[kept], rtol=1e-5, atol=1e-2)
        torch.testing.assert_close(got.scores[i, : len(kept)], scores[kept])


@torch.no_grad()
@pytest.mark.parametrize(("h", "w"), [(2, 2), (15, 20), (50, 2)])
def test_proposals_lie_in_the_picture_apart_and_in_order(h: int, w: int) -> None:
    got = lively()(*tensors(inputs(3, h, w)))
    for boxes, scores, number in zip(got.boxes, got.scores, got.number.flatten().tolist(), strict=True):
        found = boxes[:number]
        assert (found >= 0).all() and (found <= torch.tensor([w, h, w, h]) * 32.0).all()
        assert (found[:, 2:] - found[:, :2] >= 16).all()
        assert (scores[:number].diff() <= 0).all() and (scores <= 1).all()
        assert (torchvision.ops.box_iou(found, found).fill_diagonal_(0) <= 0.7 + 1e-3).all()
        assert not boxes[number:].any() and not scores[number:].any()


@torch.no_grad()
def test_a_batch_gives_what_one_at_a_time_gives() -> None:
    rpn, (feature_map, size) = lively(), tensors(inputs(8, 11, 20))
    together = rpn(feature_map, size)
    for i in range(8):
        alone = rpn(feature_map[i : i + 1], size[i : i + 1])
        torch.testing.assert_close(together.boxes[i], alone.boxes[0], rtol=1e-4, atol=1e-2)
        assert together.number[i] == alone.number[0]


def test_anchors_are_centred_on_cells_in_pixels_of_the_picture() -> None:
    rpn = RegionProposals(4)
    anchors = rpn.anchors(torch.zeros(2, 4, 15, 20), torch.tensor([[480, 640], [960, 640]], dtype=torch.int32))
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert anchors.shape == (2, 15 * 20 * 12, 4)
    assert centres[0, 0].tolist() == [16, 16] and centres[0, -1].tolist() == [624, 464]
    assert centres[1, 0].tolist() == [16, 32]


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (RegionProposals.untrained(8, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])


@pytest.mark.parametrize("opset", [18, 21])
def test_exported_proposals_equal_eager_at_several_sizes(tmp_path: Path, opset: int) -> None:
    rpn, path = lively(), tmp_path / "rpn.onnx"
    write_onnx(rpn, GRAPH, inputs(2, 15, 20), path, opset=opset)
    runs = {name: ENGINES[name](path) for name in ("onnxruntime-fp32", "openvino-fp32")}
    for batch, h, w in ((1, 2, 2), (1, 15, 20), (3, 20, 15), (8, 11, 20), (1, 50, 50)):
        arrays = inputs(batch, h, w)
        with torch.no_grad():
            expected = rpn(*tensors(arrays))._asdict()
        for name, run in runs.items():
            for output, array in run(arrays).items():
                np.testing.assert_allclose(array, expected[output].numpy(), atol=0.05, err_msg=f"{name} {h}x{w}")


def test_a_detector_of_proposals_keeps_the_contract() -> None:
    trunk, sizes = BACKBONES["efficientnet_lite0"].load(None, "auto").trunk, Sizes(channels=1280)
    detector = ProposalDetector(trunk=trunk, rpn=RegionProposals.untrained(1280, seed=0), sizes=sizes).eval()
    with torch.no_grad():
        got = detector(torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8))
    assert got.boxes.shape == (2, 8, 4) and got.box_scores.shape == (2, 8) and got.box_count.shape == (2, 1)
    assert (got.boxes <= torch.tensor([128, 96, 128, 96])).all()
    with pytest.raises(ValueError, match="got 4 proposals; expected at least"):
        ProposalDetector(trunk=trunk, rpn=RegionProposals(1280, proposals=4), sizes=sizes)
