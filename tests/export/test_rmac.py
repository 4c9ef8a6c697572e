import numpy as np
import pytest
import torch
from shared_files import reference

from landseer.export.models.pooling import Projection, l2n
from landseer.export.models.rmac import GridRMAC, ProposalRMAC, aggregated, cells, grid, region_max, spans

SPANS = spans(32)


def as_set(boxes: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(tuple(map(int, box)) for box in boxes)


def laid(height: int, width: int, levels: int) -> np.ndarray:
    found = grid(height, width, levels)
    return found.boxes[found.valid].numpy()


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_grid_over_pixels_is_that_of_the_authors(levels: int) -> None:
    known = reference("rmac_grid_dir_caffe.npz")
    for j, (height, width) in enumerate(known["hw"]):
        xywh = known[f"r{j}_L{levels}_xywh"]
        inclusive = np.c_[xywh[:, :2], xywh[:, :2] + xywh[:, 2:] - 1]
        assert as_set(laid(int(height), int(width), levels)) == as_set(inclusive), (height, width)


def test_a_picture_of_the_paper_has_2_8_and_20_regions() -> None:
    assert [len(laid(543, 724, levels)) for levels in (1, 2, 3)] == [2, 8, 20]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_over_cells_it_is_that_of_cnnimageretrieval_and_so_are_the_maxima(levels: int) -> None:
    known = reference("rmac_cirtorch.npz")
    for j, (height, width) in enumerate(known["shapes_hw"]):
        boxes = known[f"regions{j}_L{levels}_xyxy_excl"].astype(np.int64) - [0, 0, 1, 1]
        assert as_set(laid(int(height), int(width), levels)) == as_set(boxes[1:])  # theirs begins with the whole map
        maxima = region_max(torch.from_numpy(known[f"x{j}"]), torch.from_numpy(boxes)[None], SPANS)[0]
        np.testing.assert_allclose(maxima.numpy(), known[f"regionmax{j}_L{levels}"], atol=1e-6)


@pytest.mark.parametrize("j", [0, 3, 6])
def test_regions_are_projected_and_summed_as_the_authors_do(j: int) -> None:
    known = reference("rmac_cirtorch.npz")
    boxes = torch.from_numpy(known[f"regions{j}_L3_xyxy_excl"].astype(np.int64) - [0, 0, 1, 1])[None]
    weight, bias = (known[name].astype(np.float64) for name in ("white_W", "white_b"))
    projection = Projection(torch.from_numpy(-np.linalg.solve(weight, bias)).float(), torch.from_numpy(weight).float())
    vectors = l2n(region_max(torch.from_numpy(known[f"x{j}"]), boxes, SPANS))
    got = aggregated(vectors, torch.ones(1, boxes.shape[1], dtype=torch.bool), projection)
    np.testing.assert_allclose(got[0].numpy(), known[f"dir_pipeline{j}_L3"], atol=1e-4)


def test_region_max_is_the_maximum_of_each_region_of_each_picture() -> None:
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(size=(3, 5, 7, 70)).astype(np.float32))
    corners = np.stack([np.sort(draw.integers(0, n, (3, 40, 2)), axis=2) for n in (70, 7)], axis=-1)  # [B, R, 2, xy]
    boxes = torch.from_numpy(corners.reshape(3, 40, 4))
    got = region_max(x, boxes, SPANS)
    for b in range(3):
        for r, (x0, y0, x1, y1) in enumerate(boxes[b].tolist()):
            assert torch.equal(got[b, r], x[b, :, y0 : y1 + 1, x0 : x1 + 1].amax(dim=(1, 2)))


def test_the_runs_of_cells_cover_the_longest_side_of_a_map() -> None:
    assert [spans(stride) for stride in (32, 16, 14)] == [7, 8, 8]
    x = torch.rand(1, 2, 3, 161)
    boxes = torch.tensor([[[0, 0, 160, 2], [20, 1, 149, 1]]])
    got = region_max(x, boxes, spans(14))
    assert torch.equal(got[0, 0], x[0].amax(dim=(1, 2))) and torch.equal(got[0, 1], x[0, :, 1, 20:150].amax(dim=1))


def test_cells_are_rounded_and_never_empty() -> None:
    feature_map = torch.zeros(1, 1, 15, 20)
    boxes = torch.tensor([[0, 0, 639, 479], [15, 16, 17, 18], [630, 470, 639, 479]])
    assert cells(boxes, feature_map, 480, 640).tolist() == [[0, 0, 19, 14], [0, 1, 1, 1], [19, 14, 19, 14]]


def test_padding_of_the_grid_changes_nothing() -> None:
    x = torch.rand(2, 8, 6, 9, generator=torch.Generator().manual_seed(3))
    head = GridRMAC(8).eval()
    found = grid(192, 288, 3)
    vectors = head.regions(x, 192, 288)
    vectors = vectors.unflatten(0, (2, -1))
    assert vectors.shape[1] == int(found.valid.sum())
    everything = torch.ones(1, vectors.shape[1], dtype=torch.bool)
    torch.testing.assert_close(head(x, 192, 288)[0], aggregated(vectors, everything, head.projection))


class Planted(torch.nn.Module):
    """Proposes what it is told."""

    def forward(self, feature_map: torch.Tensor, image_size: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = feature_map.shape[0]
        boxes = torch.tensor([[32.0, 0.0, 96.0, 64.0], [0.0, 0.0, 0.0, 0.0]]).expand(batch, 2, 4)
        return boxes, torch.tensor([[0.9, 0.0]]).expand(batch, 2), torch.ones(batch, 1, dtype=torch.int32)


def test_proposals_that_are_not_there_have_no_part_in_it() -> None:
    x = torch.rand(2, 8, 4, 5, generator=torch.Generator().manual_seed(3))
    descriptor, attention = ProposalRMAC(8, Planted())(x, 128, 160)
    torch.testing.assert_close(descriptor, l2n(x[:, :, 0:3, 1:4].amax(dim=(2, 3))))
    covered = torch.tensor([[0.0, 1, 1, 1, 0]] * 3 + [[0.0] * 5])  # rounded, as Caffe does
    torch.testing.assert_close(attention[0], covered, atol=1e-5, rtol=0)
