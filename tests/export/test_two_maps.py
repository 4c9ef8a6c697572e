"""R-MAC beside GeM of the fine map: what it computes, and that it learns from pairs."""

import numpy as np
import pytest
import torch
from PIL import Image

from landseer.export.datasets.readers import read
from landseer.export.models.beside import RMACBesideGeM, SideBySide, fine_values
from landseer.export.models.pooling import Projection, gem, l2n
from landseer.export.models.rmac import GridRMAC
from landseer.export.models.trunk import Maps, Trunk
from landseer.export.photographs import photographs
from landseer.export.training.paired_views import PairedViews
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.two_maps import Pooled, learned_side_by_side

CHANNELS, FINE, SIDE = 40, 12, 96


def test_the_head_puts_both_maps_side_by_side() -> None:
    draw = torch.Generator().manual_seed(0)
    last, fine = torch.rand(2, CHANNELS, 5, 7, generator=draw), torch.rand(2, FINE, 10, 14, generator=draw)
    found, attention = RMACBesideGeM(CHANNELS).eval()(last, fine, 160, 224)
    regions, seen = GridRMAC(CHANNELS)(last, 160, 224)
    torch.testing.assert_close(found[:, :CHANNELS], regions)
    torch.testing.assert_close(found[:, CHANNELS:], l2n(gem(fine)))
    torch.testing.assert_close(attention, seen)


def test_a_cosine_is_the_weighted_mean_of_both() -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [torch.rand(6, size, generator=draw) for size in (CHANNELS, FINE)]
    last, fine = (Projection(torch.rand(s, generator=draw), torch.randn(s // 2, s, generator=draw)) for s in (40, 12))
    whole = SideBySide(last, fine, weight=0.5)(torch.cat(parts, dim=1))
    assert whole.shape == (6, 26)
    first, second = last(l2n(parts[0])), fine(l2n(parts[1]))
    expected = 0.8 * first @ first.T + 0.2 * second @ second.T  # 1 to 0.5²
    torch.testing.assert_close(whole @ whole.T, expected, atol=1e-5, rtol=1e-5)


def test_untrained_it_reduces_both_to_as_many_values_as_the_last_map_has() -> None:
    made = SideBySide.untrained(1280, 672)
    assert (len(made.last.matrix), len(made.fine.matrix)) == (896, 384) and fine_values(1280) == 384
    found = made(torch.rand(3, 1280 + 672))
    assert found.shape == (3, 1280)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), atol=1e-4, rtol=0)


class Features(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early = torch.nn.Sequential(torch.nn.Conv2d(3, FINE, 16, stride=16), torch.nn.ReLU())
        self.late = torch.nn.Sequential(torch.nn.Conv2d(FINE, CHANNELS, 2, stride=2), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.late(self.early(x))
        return found

    def maps(self, x: torch.Tensor) -> Maps:
        fine = self.early(x)
        return Maps(self.late(fine), fine, fine)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = Features()
    return Trunk(
        features=features,
        classifier=torch.nn.Identity(),
        channels=CHANNELS,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        maps=features.maps,
        fine_channels=FINE,
    ).eval()


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> PairedViews:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "all").mkdir()
    for number, pixels in enumerate(photographs(side=SIDE)):
        Image.fromarray(pixels).save(folder / "all" / f"{number}.png")
    shots = Shots(photographs=read(f"folder:{folder}").photographs, profile=profile_of(SIDE))
    return PairedViews(shots=shots, rows=np.arange(4), targets=6, seed=3)


def test_pairs_are_of_photographs_then_of_targets_and_repeat(views: PairedViews) -> None:
    assert len(views) == 20 and views.things.tolist() == [thing for thing in range(10) for _ in range(2)]
    pictures = [views[place] for place in range(len(views))]
    assert all(picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert all(np.array_equal(picture, views[place]) for place, picture in enumerate(pictures))
    assert len({picture.tobytes() for picture in pictures}) == 20


def test_it_learns_to_tell_pairs_from_others(trunk: Trunk, views: PairedViews) -> None:
    done: list[int] = []
    learned = learned_side_by_side(trunk, views, precision="f32", report=done.append)
    assert done == list(range(1, 21))
    assert (learned.last.matrix.shape, learned.fine.matrix.shape) == ((28, CHANNELS), (12, FINE))
    pooled = Pooled(trunk, "f32")
    rows = torch.from_numpy(np.stack([pooled(views[place]) for place in range(len(views))]))

    def margin(vectors: torch.Tensor) -> float:
        cosines = vectors @ vectors.T
        own = torch.from_numpy(views.things[:, None] == views.things[None]) & ~torch.eye(len(rows), dtype=torch.bool)
        others = torch.from_numpy(views.things[:, None] != views.things[None])
        return float(cosines[own].mean() - cosines[others].mean())

    assert margin(learned(rows)) > margin(l2n(rows)) + 0.1
