from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from landseer.export.datasets.photograph import Photograph
from landseer.export.models.trunk import Trunk
from landseer.export.photographs import photographs
from landseer.export.training import trunk_views as module
from landseer.export.training.trunk_views import TrunkViews, ViewSpec, trunk_views

SPEC = ViewSpec(side=64, views=2)


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 6, 33, stride=32, padding=16), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=6, mean=(127.0,) * 3, std=(60.0,) * 3).eval()


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> list[Photograph]:
    folder = tmp_path_factory.mktemp("photographs")
    made = []
    for i, pixels in enumerate(photographs(side=200)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append(Photograph(path=folder / f"{i}.png", label=f"class {i % 2}"))
    return made


def run(some: list[Photograph], trunk: Trunk, folder: Path, *, stop: int = 99) -> TrunkViews:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        if done >= stop:
            raise StopHereError

    return trunk_views(some, trunk, fingerprint="a trunk", spec=SPEC, folder=folder, precision="f32", progress=progress)


def test_the_maps_are_those_of_the_trunk(some: list[Photograph], trunk: Trunk, tmp_path: Path) -> None:
    views = run(some, trunk, tmp_path)
    assert views.maps.shape == (len(some), 2, 6, 2, 2) and views.labels == tuple(one.label for one in some)
    pixels = torch.from_numpy(module._views(some, 3, SPEC)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        wanted = trunk(pixels)
    torch.testing.assert_close(views.batch(np.array([3])), wanted, atol=5e-3, rtol=5e-3)


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    some: list[Photograph], trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVED_EVERY", 2)
    with pytest.raises(StopHereError):
        run(some, trunk, tmp_path / "a", stop=3)
    again, through = run(some, trunk, tmp_path / "a"), run(some, trunk, tmp_path / "b")
    assert np.array_equal(again.maps, through.maps)


def test_what_is_on_disk_is_not_computed_again(some: list[Photograph], trunk: Trunk, tmp_path: Path) -> None:
    first = run(some, trunk, tmp_path)
    broken = Trunk(features=nn.Identity(), classifier=nn.Identity(), channels=6, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert np.array_equal(run(some, broken, tmp_path).maps, first.maps)


def test_views_that_the_disk_has_no_room_for_are_refused_before_anything_is_written(
    some: list[Photograph], trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    with pytest.raises(OSError, match="free some space, or use fewer photographs"):
        run(some, trunk, tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []


def test_a_photograph_is_seen_as_its_camera_was_held(tmp_path: Path) -> None:
    pixels = next(photographs(side=120))
    turned = Image.fromarray(np.rot90(pixels).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(module._read(tmp_path / "turned.png", 64), pixels)
