"""Public checkpoints by their publishers' protocol, on a benchmark of drawn pictures and seeded weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from shared_files import shared
from torch.nn import functional as F

from landseer.export.models.how import is_how, read_how, smoothed, strengths, strongest
from landseer.export.models.torch_file import WeightsError
from landseer.ops.research.published import PUBLISHED, Shot, main, of_gem, published

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def drawn(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(blocks, (128, 96), interpolation=cv2.INTER_NEAREST)


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """Six pictures; the query is a part of the first, and the second is nearly the same."""
    folder = tmp_path / "data" / "jpg"
    folder.mkdir(parents=True)
    for number in range(6):
        Image.fromarray(drawn(0 if number == 1 else number)).save(folder / f"p{number}.jpg", quality=95 - number)
    gnd = [{"bbx": [8, 8, 120, 90], "easy": [0], "hard": [1], "junk": [5]}]
    truth = {"imlist": [f"p{number}" for number in range(6)], "qimlist": ["p0"], "gnd": gnd}
    (tmp_path / "data" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    return f"revisitop:{tmp_path / 'data'},roxford5k"


def seeded(network: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
    return network.eval()


def resnet50(path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = seeded(torchvision.models.resnet50())
    features = torch.nn.Sequential(*list(network.children())[:-2])
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    meta = {"architecture": "resnet50", "pooling": "gem", "mean": MEAN, "std": STD}
    torch.save({"meta": meta, "state_dict": {**state, "pool.p": torch.tensor([2.5])}}, path)
    return path


def resnet18(path: Path, **changes: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = seeded(torchvision.models.resnet18())
        reduction = torch.nn.Conv2d(256, 32, 1)
    features = torch.nn.Sequential(*list(network.children())[:-3])
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state |= {f"dim_reduction.{name}": value for name, value in reduction.state_dict().items()}
    options = {"architecture": "resnet18", "skip_layer": 1, "dim_reduction": {"dim": 32}, "pretrained": True}
    options |= {"smoothing": {"kernel_size": 3}, "runtime": {"mean_std": [MEAN, STD]}}
    torch.save({"net_params": options | changes, "state_dict": state, "_version": "how/2020"}, path)
    return path


def test_a_part_is_reduced_as_much_as_the_whole_and_never_enlarged(tmp_path: Path) -> None:
    Image.fromarray(drawn(0)).save(tmp_path / "a.png")
    corners = (8.0, 8.0, 72.0, 40.0)
    assert Shot(path=tmp_path / "a.png").pixels(1024).shape == (1, 3, 96, 128)
    assert Shot(path=tmp_path / "a.png").pixels(64).shape == (1, 3, 48, 64)
    assert Shot(path=tmp_path / "a.png", corners=corners).pixels(1024).shape == (1, 3, 32, 64)
    assert Shot(path=tmp_path / "a.png", corners=corners).pixels(64).shape == (1, 3, 16, 32)


def test_without_its_own_whitening_scales_are_averaged_by_the_exponent(tmp_path: Path) -> None:
    path, x = resnet50(tmp_path / "some.pth"), 255 * torch.rand(1, 3, 96, 64)
    network = torchvision.models.resnet50()
    layers = torch.nn.Sequential(*list(network.children())[:-2]).eval()
    state = torch.load(path, weights_only=True)["state_dict"]
    layers.load_state_dict({name[9:]: value for name, value in state.items() if name.startswith("features.")})
    total = torch.zeros(2048)
    with torch.no_grad():
        normal = (x / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        for scale in (1, 2**-0.5, 0.5):
            found = layers(F.interpolate(normal, scale_factor=scale, mode="bilinear", align_corners=False))
            pooled = found.clamp(min=1e-6).pow(2.5).mean(dim=(2, 3)).pow(1 / 2.5)[0]
            total += (pooled / pooled.norm()).pow(2.5) / 3
        expected = total.pow(1 / 2.5)
        torch.testing.assert_close(of_gem(path, None)(x), expected / expected.norm(), atol=1e-5, rtol=1e-3)


def test_a_gem_checkpoint_prints_its_figures(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [benchmark, "--weights", str(resnet50(tmp_path / "some.pth")), "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[0] == "roxford5k medium  mAP 100.0, published: not known"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert len(kept) == 7
    assert main(words) == 0 and capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_how_prints_its_figures(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "others" / "one"
    folder.mkdir(parents=True)
    for number in range(10, 14):
        Image.fromarray(drawn(number)).save(folder / f"{number}.png")
    path = resnet18(tmp_path / "how_r18.pth")
    words = [benchmark, "--weights", str(path), "--cache", str(tmp_path / "cache"), "--features", "60"]
    assert main(words) == 1
    assert "HOW needs --codebook-from DATA" in capsys.readouterr().err
    assert main([*words, "--codebook-from", f"folder:{folder.parent}", "--words", "16"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "roxford5k medium  mAP 100.0, published: not known"


def test_how_selects_as_its_authors_do() -> None:
    known = np.load(shared("refs/how_local.npz"))
    maps = [torch.from_numpy(known[f"feat{place}"]) for place in range(3)]
    lengths = [strengths(one) for one in maps]
    for place, one in enumerate(maps):
        np.testing.assert_allclose(lengths[place], known[f"att{place}"], rtol=1e-5)
        np.testing.assert_allclose(smoothed(one, 3), known[f"smooth{place}"], rtol=1e-5, atol=1e-6)
    found = strongest([smoothed(one, 3) for one in maps], lengths, 50)
    np.testing.assert_allclose(found, known["sel_desc"], rtol=1e-5, atol=1e-6)


def test_the_first_format_of_how_is_read(tmp_path: Path) -> None:
    now = torch.load(resnet18(tmp_path / "now.pth"), weights_only=True)
    state = {name.replace("dim_reduction", "whiten"): value for name, value in now["state_dict"].items()}
    meta = {"architecture": "resnet18", "skip_layer": 1, "dim": 32, "feat_pool_k": 3, "mean": MEAN, "std": STD}
    before = {"meta": meta, "state_dict": state}
    assert is_how(before) and is_how(now)
    x = 255 * torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        old, new = (read_how(one, tmp_path)(x, scales=(1.0,), count=7) for one in (before, now))
    assert old.shape == (7, 32) and torch.equal(old, new)


def test_other_files_are_refused(benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="does not fit HOW on resnet18"):
        read_how(torch.load(resnet18(tmp_path / "a.pth", skip_layer=0), weights_only=True), tmp_path)
    with pytest.raises(WeightsError, match="is of vgg16; expected resnet18 or"):
        read_how(torch.load(resnet18(tmp_path / "a.pth", architecture="vgg16"), weights_only=True), tmp_path)
    with pytest.raises(WeightsError, match="lacks 'runtime'"):
        read_how({"net_params": {"architecture": "resnet18"}, "state_dict": {}}, tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "b.pth")
    assert main([benchmark, "--weights", str(tmp_path / "b.pth"), "--cache", str(tmp_path / "cache")]) == 1
    assert "is neither a checkpoint of cnnimageretrieval-pytorch nor one of HOW" in capsys.readouterr().err


def test_a_checkpoint_of_a_network_that_is_no_backbone_is_refused(
    benchmark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = {"architecture": "vgg16", "pooling": "gem", "mean": [0.5] * 3, "std": [0.2] * 3}
    torch.save({"meta": meta, "state_dict": {}}, tmp_path / "vgg.pth")
    assert main([benchmark, "--weights", str(tmp_path / "vgg.pth"), "--cache", str(tmp_path / "cache")]) == 1
    assert "vgg16" in capsys.readouterr().err


def test_figures_are_known_by_the_files_that_the_publishers_offer() -> None:
    assert published(Path("gl18-tl-resnet101-gem-w-a4d43db.pth"), "", "roxford5k") == (67.3, 44.3)
    assert published(Path("how_r50-.pth"), "2000", "rparis6k")[0] == 81.6
    assert np.isnan(published(Path("how_r50-.pth"), "500", "roxford5k")[0])
    assert np.isnan(published(Path("retrievalSfM120k-resnet101-gem-b80fb85.pth"), "", "roxford5k")[0])
    assert all(set(known) == {"roxford5k", "rparis6k"} for known in PUBLISHED.values())
