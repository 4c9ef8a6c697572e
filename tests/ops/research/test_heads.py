import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from landseer.ensemble.evaluation import Evaluation
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import untrained_head
from landseer.export.models.trunks import Trunk
from landseer.export.parts import Parts
from landseer.export.photographs import photographs
from landseer.ops.evaluate import head_vectors
from landseer.ops.evaluate.head_variants import BASELINE, Cost, cost, variants
from landseer.ops.evaluate.head_vectors import describe_by_heads
from landseer.ops.research import heads as run
from landseer.ops.research.heads_report import HeadRow, HeadTable

PROFILE = Profile(backbone="small", weights_sha256="", sizes=Sizes(channels=8), long_side=128)
COST = Cost(parameters=1_500_000, gflops=2.0)


def judged(aps: list[float]) -> Evaluation:
    ones = np.ones((len(aps), 2))
    return Evaluation(aps=np.array(aps), precisions=ones)


def row(name: str, *aps: list[float]) -> HeadRow:
    return HeadRow(name=name, figures=[judged(one) for one in aps], cost=COST)


def test_the_table_gives_means_spreads_and_paired_differences() -> None:
    table = HeadTable(
        backbone="a trunk",
        source="from somewhere",
        rows=[row(BASELINE, [0.2, 0.4]), row("CiDeR", [0.3, 0.5], [0.5, 0.7])],
        classes=np.arange(2),
    )
    base, cider = table.text().splitlines()[-2:]
    few = "too few classes"
    assert base.startswith(f"| GeM off the shelf | 30.0 ({few}) | 20.0 to 40.0 | - | - | - | 100.0% | 1.5 M | 2.0 |")
    # Each query gains the same, so that the paired interval has no width although those of the maps have.
    assert cider.startswith(
        f"| CiDeR | 50.0 ({few}) | 40.0 to 60.0 | 2: 40.0 to 60.0 | +20.0 ({few}) | +20.0 to +20.0 |"
    )


def test_the_table_has_intervals_over_classes() -> None:
    rows = [row(BASELINE, [0.2] * 10), row("CiDeR", [0.1] * 5 + [0.9] * 5)]
    text = HeadTable(backbone="t", source="s", rows=rows, classes=np.arange(10) % 5).text()
    # Each class has one query of each value, so the mean is the same whatever classes are drawn.
    assert "| CiDeR | 50.0 (50.0 to 50.0) | " in text and "| +30.0 (+30.0 to +30.0) | " in text


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    features = nn.Sequential(nn.Conv2d(3, 8, 32, stride=32), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=8, mean=(127.0,) * 3, std=(60.0,) * 3).eval()


def test_costs_are_counted(trunk: Trunk) -> None:
    plain = next(iter(variants(8, [])))
    counted = cost(plain, trunk, side=64)
    assert counted.parameters == 3 * 8 * 32 * 32 + 8 + 1  # the convolution, its bias, and GeM's p
    assert counted.gflops == pytest.approx((2 * 4 * 3 * 8 * 32 * 32 + 2 * 8 * 8) / 1e9)


def test_trained_parts_are_rows_of_their_own() -> None:
    head = untrained_head("cider", 8)
    parts = Parts(
        backbone="small",
        trunk_sha256="",
        descriptor="cider",
        learned=(),
        tensors={f"head.{name}": value for name, value in head.state_dict().items()},
        card={"seed": 2},
    )
    made = list(variants(8, [parts, dataclasses.replace(parts, card={"seed": 3})]))
    assert [(one.name, one.seed) for one in made[2:]] == [("CiDeR", 2), ("CiDeR", 3)]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for i, pixels in enumerate(photographs(side=150)):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


class OnTrunk:
    """Runs the trunk, and is stopped after so many pictures."""

    def __init__(self, trunk: Trunk, stop: int | None = None) -> None:
        self._trunk, self._stop, self.calls = trunk, stop, 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self.calls == self._stop:
            raise KeyboardInterrupt
        self.calls += 1
        with torch.no_grad():
            return self._trunk(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).half().numpy()


def described(paths: list[Path], run: OnTrunk, folder: Path) -> list[np.ndarray]:
    chosen = list(variants(8, []))
    return describe_by_heads(paths, chosen, run=run, trunk="t", profile=PROFILE, folder=folder, progress=lambda: None)


def test_pictures_are_described_once(trunk: Trunk, pictures: list[Path], tmp_path: Path) -> None:
    run = OnTrunk(trunk)
    first, again = (described(pictures, run, tmp_path / "v") for _ in range(2))
    assert run.calls == len(pictures) and len(first) == 2
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    np.testing.assert_allclose(np.linalg.norm(first[0], axis=1), 1, atol=1e-3)


def test_describing_goes_on_after_the_last_block(
    trunk: Trunk, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = described(pictures, OnTrunk(trunk), tmp_path / "whole")
    monkeypatch.setattr(head_vectors, "BLOCK", 2)
    with pytest.raises(KeyboardInterrupt):
        described(pictures, OnTrunk(trunk, stop=3), tmp_path / "v")
    rest = OnTrunk(trunk)
    found = described(pictures, rest, tmp_path / "v")
    assert rest.calls == len(pictures) - 2
    assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    assert len(list((tmp_path / "v").iterdir())) == len(whole)


def test_judging_on_what_was_trained_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (80, 80)).save(tmp_path / name)
    data = f"folder:{tmp_path}"
    assert run.main(["--train", data, "--test", data, "--backbone", "efficientnet_lite0"]) == 1
    assert "4 photographs are in both sets" in capsys.readouterr().err
