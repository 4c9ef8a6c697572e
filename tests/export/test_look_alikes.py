"""Drawn covers in families, the cameras that see them, and their views."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from landseer.export.datasets.photograph import Photograph
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Trunk
from landseer.export.photographs import photographs
from landseer.export.training import look_alike_views as module
from landseer.export.training.camera import CLOSE, photographed, scanned
from landseer.export.training.errors import TrainingError
from landseer.export.training.look_alike_views import EACH, HELD, LEARNING, NO_FAMILY, LookAlikes, front_maps
from landseer.export.training.look_alikes import HEIGHT, MEMBERS, WIDTH, family

CHANNELS = 6


def flat(draw: np.random.Generator) -> np.ndarray:
    return draw.integers(0, 256, (40, 50, 3)).astype(np.uint8)


def test_a_family_shares_its_design_and_nothing_else() -> None:
    covers = family(3, flat)
    assert len(covers) == MEMBERS and all(one.shape == (HEIGHT, WIDTH, 3) and one.dtype == np.uint8 for one in covers)
    assert all(np.array_equal(one, other) for one, other in zip(covers, family(3, flat), strict=True))

    def difference(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.abs(one.astype(int) - other).mean())

    stranger = family(4, flat)[1]
    # The last has the picture of the first and another title.
    assert 0 < difference(covers[0], covers[3]) < difference(covers[0], covers[1])
    assert difference(covers[0], covers[3]) < difference(covers[0], stranger)


@pytest.mark.parametrize("side", [64, 96])
def test_cameras_see_the_cover_and_what_is_around_it(side: int) -> None:
    cover, behind = np.full((90, 60, 3), (250, 10, 10), np.uint8), np.full((30, 40, 3), (10, 10, 250), np.uint8)
    for seed in range(5):
        draw = np.random.default_rng(seed)
        scan = scanned(cover, draw, side=side)
        assert scan.shape == (side, side, 3) and scan.dtype == np.uint8
        red = scan[..., 0].astype(int) - scan[..., 2] > 100
        # 60 of 90 wide, and nearly as tall as the scan.
        assert 0.45 < red.mean() < 0.7 and not red[:, 0].any()
        photograph = photographed(cover, draw, side=side, background=behind)
        assert photograph.shape == (side, side, 3)
        assert 0.02 < (photograph[..., 0].astype(int) - photograph[..., 2] > 60).mean() < 0.9
    same = [photographed(cover, np.random.default_rng(1), side=side, background=behind, extent=CLOSE) for _ in range(2)]
    assert np.array_equal(*same)


@pytest.fixture
def shown(tmp_path: Path) -> list[Photograph]:
    pictures = list(photographs(side=96))
    shown = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pictures[number % len(pictures)]).save(path)
        shown.append(Photograph(path=path, label="a"))
    return shown


@pytest.fixture
def trunk() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        front = nn.Sequential(nn.Conv2d(3, CHANNELS, 33, stride=32, padding=16, bias=False), nn.BatchNorm2d(CHANNELS))
        back = nn.Sequential(nn.Conv2d(CHANNELS, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    return Trunk(
        features=nn.Sequential(front, back),
        classifier=nn.Identity(),
        channels=8,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        split=lambda: (front, back),
    ).eval()


def test_parts_share_no_photograph(shown: list[Photograph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 10)
    things = LookAlikes(shown, seed=0, families=(3, 2, 1), most=(4, 5, 5))
    assert [len(rows) for rows in things.rows] == [6, 2, 2]
    assert sorted(np.concatenate(things.rows).tolist()) == list(range(10))
    counts = {part: sum(one.part == part for one in things.things) for part in range(3)}
    assert counts == {0: 3 * MEMBERS + 4, 1: 2 * MEMBERS + 2, 2: MEMBERS + 2} and things.covers == 6 * MEMBERS
    assert len({one.family for one in things.things} - {NO_FAMILY}) == 6
    drawn = []
    monkeypatch.setattr(
        things.shots.__class__, "pixels", lambda self, row: drawn.append(row) or flat(np.random.default_rng(row))
    )
    for number, thing in enumerate(things.things):
        if thing.part == HELD:
            views = things.views(number)
            assert len(views) == EACH and all(one.shape == (module.SIDE, module.SIDE, 3) for one in views)
    assert drawn and set(drawn) <= set(things.rows[HELD].tolist())
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="got 10 photographs; expected at least 50"):
        LookAlikes(shown, seed=0)


def test_maps_are_computed_once_in_blocks(
    shown: list[Photograph], trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 10)
    monkeypatch.setattr(module, "BLOCK", 3)
    monkeypatch.setattr(module, "SIDE", 96)
    things, done = LookAlikes(shown, seed=0, families=(1, 0, 0), most=(2, 1, 1)), list[int]()

    def maps(fingerprint: str = "t") -> module.FrontMaps:
        return front_maps(
            things, trunk, fingerprint=fingerprint, precision="f32", folder=tmp_path / "maps", progress=done.append
        )

    found = maps()
    assert found.maps.shape == (8 * EACH, CHANNELS, 3, 3) and done == [3, 3, 2]
    assert found.rows(LEARNING).tolist() == list(range(6 * EACH)) and len(found.rows(HELD)) == EACH
    picture = torch.from_numpy(np.stack(things.views(7))).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = trunk.split()[0]((picture - trunk.mean) / trunk.std)
    np.testing.assert_allclose(found.maps[-EACH:], expected.numpy(), rtol=1e-2, atol=1e-2)
    (tmp_path / "maps" / f"{found.key}-3.npy").unlink()
    drawn, views = list[int](), LookAlikes.views
    monkeypatch.setattr(LookAlikes, "views", lambda self, number: drawn.append(number) or views(self, number))
    again = maps()
    # As if it had been stopped in the second block: only that one is computed again.
    assert drawn == [3, 4, 5] and again.key == found.key and np.array_equal(again.maps, found.maps)
    assert maps("other").key != found.key


def test_a_trunk_without_last_blocks_says_so() -> None:
    trunk = Trunk(features=nn.Identity(), classifier=nn.Identity(), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    trunk.backbone = "dinov2_vits14"
    with pytest.raises(WeightsError, match="dinov2_vits14 has no last blocks to train; expected an EfficientNet-Lite"):
        trunk.split()
