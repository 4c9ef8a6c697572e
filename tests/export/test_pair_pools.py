"""Pairs of pictures, pooled for co-attention and kept on disk."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from landseer.export.datasets.photograph import Photograph
from landseer.export.models.backbone import LOCAL_SCALES, resized, strongest
from landseer.export.models.pooling import masked_gem
from landseer.export.models.trunk import Trunk
from landseer.export.photographs import photographs
from landseer.export.training import pair_pools as module
from landseer.export.training.pair_pools import STRONGEST, pair_pools
from landseer.export.training.paired_views import PairedViews, paired_views

CHANNELS = 12


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, CHANNELS, 33, stride=32, padding=16), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)


@pytest.fixture
def pairs(tmp_path: Path) -> PairedViews:
    shown = []
    for number, pixels in enumerate(list(photographs(side=160))[:3]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        shown.append(Photograph(path=path, label="a"))
    return paired_views(shown, seed=0, most=3, targets=2)


def test_pictures_are_pooled_at_all_scales_and_once(
    pairs: PairedViews, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    done: list[int] = []

    def pooled(seed: int = 0) -> torch.Tensor:
        some = PairedViews(shots=pairs.shots, rows=pairs.rows, targets=pairs.targets, seed=seed)
        return pair_pools(
            some, trunk, fingerprint="t", precision="f32", folder=tmp_path / "pools", progress=done.append
        ).queries

    first = pooled()
    assert first.shape == (10, CHANNELS) and done == [2, 2, 1] and len(list((tmp_path / "pools").iterdir())) == 3
    picture = torch.from_numpy(pairs[3].copy())[None].permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        maps = [trunk(resized(picture, scale)).flatten(2).transpose(1, 2) for scale in LOCAL_SCALES]
    cells = torch.cat(maps, dim=1)
    rows, _, _, valid = strongest(cells, round(STRONGEST * cells.shape[1]))
    torch.testing.assert_close(first[3], masked_gem(rows, valid)[0], rtol=1e-2, atol=1e-2)
    # As if it had been stopped in the second block: only that one is computed again.
    parts = sorted((tmp_path / "pools").iterdir())
    times = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    assert torch.equal(pooled(), first)
    assert [part for part in parts if part.stat().st_mtime_ns != times[part]] == [parts[1]]
    assert not torch.equal(pooled(seed=1), first)
