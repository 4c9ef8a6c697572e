import numpy as np
import torch
from scipy import ndimage

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.detector import AttentionRegions, components
from landseer.export.models.pooling import min_max

SIZES = Sizes(channels=8)
ROUNDS = AttentionRegions(sizes=SIZES).rounds


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    flat = labels.ravel()
    return {frozenset(np.flatnonzero(flat == value).tolist()) for value in np.unique(flat) if value}


def spiral(n: int) -> np.ndarray:
    """One corridor winding to the middle: the longest path a component of an n x n map can have, more or less."""
    mask = np.zeros((n, n), bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    for _ in range(n * n):
        ny, nx = y + dy, x + dx
        ahead = (y + 2 * dy, x + 2 * dx)
        outside = not (0 <= ny < n and 0 <= nx < n)
        if outside or (0 <= ahead[0] < n and 0 <= ahead[1] < n and mask[ahead]):
            dy, dx = dx, -dy
            if not (0 <= y + 2 * dy < n and 0 <= x + 2 * dx < n) or mask[y + 2 * dy, x + 2 * dx]:
                break
            continue
        y, x = ny, nx
        mask[y, x] = True
    return mask


def test_components_equal_scipys_on_random_and_winding_masks() -> None:
    rng = np.random.default_rng(0)
    eight = np.ones((3, 3))
    masks = [rng.random((h, w)) < p for h, w in ((1, 1), (15, 20), (50, 50), (2, 50)) for p in (0.2, 0.45, 0.7)]
    snake = np.zeros((49, 49), bool)
    snake[::2] = True
    snake[1::4, -1] = snake[3::4, 0] = True
    masks += [snake, snake.T.copy(), spiral(50), np.ones((50, 50), bool), np.zeros((3, 4), bool)]
    for mask in masks:
        got = components(torch.from_numpy(mask)[None], ROUNDS)[0].numpy()
        expected, _ = ndimage.label(mask, eight)
        assert partition(got) == partition(expected), mask.shape


def test_boxes_are_those_of_the_components_in_image_pixels() -> None:
    attention = torch.zeros(1, 10, 20)
    attention[0, 2:5, 3:9] = 0.9
    attention[0, 7, 15] = 1.0
    got = AttentionRegions(sizes=SIZES)(attention, torch.tensor([[320, 640]], dtype=torch.int32))
    assert got.box_count.tolist() == [[2]]
    # By the attention held: the large region first, though the speck is brighter.
    assert got.boxes[0, :2].tolist() == [[96, 64, 288, 160], [480, 224, 512, 256]]
    torch.testing.assert_close(got.box_scores[0, :3], torch.tensor([0.9, 1.0, 0.0]))


def test_a_flat_map_is_the_whole_picture() -> None:
    attention = min_max(torch.full((1, 15, 20), 0.7))
    got = AttentionRegions(sizes=SIZES)(attention, torch.tensor([[480, 640]], dtype=torch.int32))
    assert got.boxes[0, 0].tolist() == [0, 0, 640, 480]
    assert got.box_count.item() == 1


def test_an_attention_spans_zero_to_one() -> None:
    attention = min_max(torch.rand(3, 9, 7))
    assert attention.amin() == 0
    assert 0.999 < attention.amax() <= 1
