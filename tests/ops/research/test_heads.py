import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from landseer.ensemble.evaluation import Evaluation, Ids
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.build import untrained_head
from landseer.export.models.backbone import GLOBAL_SCALES, LOCAL_SCALES, Backbone
from landseer.export.models.pooling import Projection
from landseer.export.models.rmac import GridRMAC
from landseer.export.models.trunk import Trunk
from landseer.export.parts import Parts
from landseer.export.photographs import photographs
from landseer.export.training.trunk_views import maps_runner
from landseer.ops.errors import OpsError
from landseer.ops.evaluate import head_vectors
from landseer.ops.evaluate.attended_rmac import ATTENDED_RMAC, AttendedRMAC
from landseer.ops.evaluate.head_variants import BASELINE, Cost, as_served, cost, variant_of, variants
from landseer.ops.evaluate.head_vectors import MAPS, describe_by_heads
from landseer.ops.research import head_times
from landseer.ops.research import heads as run
from landseer.ops.research.head_kinds import kinds
from landseer.ops.research.head_times import Time
from landseer.ops.research.heads_report import HeadRow, HeadTable

PROFILE = Profile(backbone="small", weights_sha256="", sizes=Sizes(channels=8), long_side=128)
COST = Cost(parameters=1_500_000, gflops=2.0)


def judged(aps: list[float]) -> Evaluation:
    return Evaluation(aps=np.array(aps), precisions=np.ones((len(aps), 1)))


def row(name: str, *aps: list[float], time: Time | None = None) -> HeadRow:
    return HeadRow(name=name, figures={"things": [judged(one) for one in aps]}, cost=COST, time=time)


def table(*rows: HeadRow, classes: Ids) -> str:
    return HeadTable(backbone="a trunk", source="from somewhere", rows=rows, classes={"things": classes}).text()


def test_the_tables_give_figures_costs_and_paired_differences() -> None:
    timed = Time(milliseconds=123.4, ratio=1.25)
    rows = (row(BASELINE, [0.2, 0.4]), row("CiDeR", [0.3, 0.5], [0.5, 0.7], time=timed))
    _, figures, gains = table(*rows, classes=np.arange(2)).split("| descriptor |")
    few = "too few classes"
    assert figures.startswith(" things: mAP | things: first right | parameters | GFLOPs | ms | to GeM's |")
    assert f"| GeM off the shelf | 30.0 ({few}) | 100.0 ({few}) | 1.5 M | 2.0 | - | - |" in figures
    assert f"| CiDeR | 50.0 ({few}) | 100.0 ({few}) | 1.5 M | 2.0 | 123 | 1.25 |" in figures
    # Each query gains the same, so that the paired interval has no width although those of the maps have.
    assert f"| CiDeR | +20.0 ({few}) | +20.0 to +20.0 | 2: 40.0 to 60.0 |" in gains
    assert BASELINE not in gains


def test_the_tables_have_intervals_over_classes() -> None:
    rows = (row(BASELINE, [0.2] * 10), row("CiDeR", [0.1] * 5 + [0.9] * 5))
    text = table(*rows, classes=np.arange(10) % 5)
    # Each class has one query of each value, so the mean is the same whatever classes are drawn.
    assert "| CiDeR | 50.0 (50.0 to 50.0) | " in text and "| +30.0 (+30.0 to +30.0) | " in text


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, 8, 32, stride=32), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=8, mean=(127.0,) * 3, std=(60.0,) * 3).eval()


def test_costs_are_counted(trunk: Trunk) -> None:
    plain = next(iter(variants(8, [])))
    counted = cost(plain, trunk, side=64)
    assert counted.parameters == 3 * 8 * 32 * 32 + 8 + 1  # the convolution, its bias, and GeM's p
    assert counted.gflops == pytest.approx((2 * 4 * 3 * 8 * 32 * 32 + 2 * 8 * 8) / 1e9)


def test_times_are_of_the_processor_and_ratios_of_one_round(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slowed = 0.0, iter([1.0, 1.0, 1.0, 1.0, 4.0, 4.0])

    def compiled(contender: head_times.Contender) -> Callable[[object], object]:
        def called(picture: object) -> None:
            nonlocal now
            now += next(slowed) * (0.3 if contender.precision == "bf16" else 0.2)

        return called

    monkeypatch.setattr(head_times, "_compiled", compiled)
    monkeypatch.setattr("time.process_time", lambda: now)
    variant = next(variants(8, []))
    of = {one: head_times.Contender(trunk=trunk, variant=variant, precision=one) for one in ("f32", "bf16")}
    found = head_times.times(of, baseline="f32", rounds=2)
    assert found["f32"] == Time(milliseconds=pytest.approx(500.0), ratio=1.0)
    assert found["bf16"] == Time(milliseconds=pytest.approx(750.0), ratio=pytest.approx(1.5))


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
    assert [as_served(one).scales for one in made[1:3]] == [GLOBAL_SCALES, LOCAL_SCALES]


def test_attended_regions_are_those_of_the_weighed_map() -> None:
    head = AttendedRMAC(8).eval()
    feature_map = torch.rand(1, 8, 5, 7)
    with torch.no_grad():
        localised, attention = head.cider.localise(feature_map)
        described = head(feature_map, 160, 224)
        torch.testing.assert_close(described[0], GridRMAC(8)(localised, 160, 224)[0])
        torch.testing.assert_close(described[1], attention)
        assert torch.equal(head.regions(feature_map, 160, 224), GridRMAC(8).regions(localised, 160, 224))


def test_a_learned_regional_whitening_fits_attended_regions() -> None:
    head = AttendedRMAC(8)
    head.projection = Projection(torch.ones(8), torch.eye(8))
    tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
    parts = Parts(
        backbone="small", trunk_sha256="", descriptor=ATTENDED_RMAC, learned=(), tensors=tensors, card={"seed": 0}
    )
    made = variant_of(parts, 8).head
    assert isinstance(made, AttendedRMAC) and torch.equal(made.projection.mean, torch.ones(8))


def test_variants_at_several_scales_are_those_of_the_served_backbone(
    trunk: Trunk, pictures: list[Path], tmp_path: Path
) -> None:
    served = as_served(next(iter(variants(8, []))))
    profile, sizes = dataclasses.replace(PROFILE, long_side=160), Sizes(channels=8, reduced=4, local=4)
    [found] = describe_by_heads(
        pictures[:1],
        [served],
        run=maps_runner(trunk, "f32", MAPS),
        trunk="t",
        profile=profile,
        folder=tmp_path / "v",
        progress=lambda: None,
    )
    backbone = Backbone(
        trunk=trunk,
        sizes=sizes,
        head=served.head,
        scales=served.scales,
        whitening=served.whitening,
        reduction=Projection.untrained(8, sizes.reduced, seed=0),
        locals=Projection.untrained(8, sizes.local, seed=0),
    ).eval()
    pixels = prepare(pictures[0].read_bytes(), profile=profile).pixels[None]
    with torch.no_grad():
        np.testing.assert_allclose(found, backbone(torch.from_numpy(pixels)).descriptor.numpy(), atol=2e-3)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for i, pixels in enumerate(photographs(side=150)):
        paths.append(tmp_path / "pictures" / f"{i}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def classes(tmp_path: Path) -> str:
    """Two classes of two pictures, as a data set."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "classes" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80)).save(tmp_path / "classes" / name)
    return f"folder:{tmp_path / 'classes'}"


class OnTrunk:
    """Runs the trunk, and is stopped after so many pictures."""

    def __init__(self, trunk: Trunk, stop: int | None = None) -> None:
        self._trunk, self._stop, self.calls = trunk, stop, 0

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        if self.calls == self._stop:
            raise KeyboardInterrupt
        self.calls += 1
        with torch.no_grad():
            return [self._trunk(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).half().numpy()] * 2


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


def test_judging_on_what_was_trained_on_is_refused(classes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--train", classes, "--test", classes, "--backbone", "efficientnet_lite0"]) == 1
    assert "4 photographs are in both sets" in capsys.readouterr().err


def test_a_kind_is_judged_among_its_distractors(classes: str, pictures: list[Path]) -> None:
    [kind] = kinds([f"things={classes}"], [f"things={pictures[0].parent}"])
    assert kind.name == "things" and len(kind.pictures) == 4 + len(pictures)
    vectors = np.eye(len(kind.pictures), dtype=np.float32)[: len(kind.pictures)]
    # The first class is alike and the second is not: its pictures resemble a distractor more.
    vectors[1] = vectors[0]
    vectors[2] = vectors[4]
    found = kind.judged(list(vectors))
    assert found.precisions[:, 0].tolist() == [1, 1, 0, 0] and found.aps[0] == 1


@pytest.mark.parametrize(
    ("tests", "distractors", "said"),
    [
        (["things={}"], ["gone={}"], "got distractors for gone; expected the name of a test: things"),
        (["things={}"], ["{}"], "expected NAME=FOLDER"),
        (["things={}", "things={}"], [], "two tests have one name"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(tests: list[str], distractors: list[str], said: str, classes: str) -> None:
    folder = classes.partition(":")[2]
    with pytest.raises(OpsError, match=said):
        kinds([text.format(classes) for text in tests], [text.format(folder) for text in distractors])


def test_a_report_needs_no_training(
    eager_trunk: None, classes: str, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "train"
    for name in ("x/1.png", "y/1.png"):
        (train / name).parent.mkdir(parents=True)
        Image.new("RGB", (80, 80)).save(train / name)
    out = tmp_path / "report.md"
    command = ["--train", f"folder:{train}", "--test", f"things={classes}", "--backbone", "efficientnet_lite0"]
    settings = ["--seeds", "0", "--heads", "gem", "--scales", "one", "--rounds", "0"]
    assert run.main([*command, *settings, "--folder", str(tmp_path / "kept"), "--out", str(out)]) == 0
    text = out.read_text()
    assert "- Test data, *things*" in text and "4 queries of 2 classes" in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| descriptor",
        "| GeM off the shelf",
        "| R-MAC grid off the shelf",
        "| two maps as shipped",
        "| CiDeR as shipped",
        "| descriptor",  # against GeM
        "| R-MAC grid off the shelf",
        "| two maps as shipped",
        "| CiDeR as shipped",
        "| descriptor",  # against the shipped heads
        "| GeM off the shelf",
        "| R-MAC grid off the shelf",
        "| CiDeR as shipped",
        "| descriptor",
        "| GeM off the shelf",
        "| R-MAC grid off the shelf",
        "| two maps as shipped",
    ]
