"""From photographs to parts that the export takes, on a small trunk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from landseer.export import all as everything
from landseer.export.build import Wanted, untrained_head
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import BackboneKind, Loaded, Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.parts import read_parts
from landseer.export.photographs import photographs
from landseer.export.training import command, paired_views
from landseer.export.training.command import TrainOptions, train_parts
from landseer.export.training.errors import TrainingError
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.part_trainers import TRAINERS, Training, train
from landseer.export.training.trunk_views import TrunkViews, ViewSpec
from landseer.export.training.weights import write_weights

CHANNELS, CLASSES, EACH = 520, 5, 4
QUIET = Console(quiet=True)


def loaded() -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, CHANNELS, 32, stride=32), nn.ReLU())
    trunk = Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)
    return Loaded(trunk=trunk.eval(), source="seeded", variant="small")


def views() -> TrunkViews:
    draw = np.random.default_rng(0)
    own = draw.random((CLASSES * EACH, 1, CHANNELS, 1, 1)) ** 3
    maps = (own + 0.3 * draw.random((CLASSES * EACH, 2, CHANNELS, 4, 4))).astype(np.float16)
    return TrunkViews(maps=maps, side=128, labels=tuple(f"class {i // EACH}" for i in range(CLASSES * EACH)))


def training(folder: Path, proposals: Path | None = None) -> Training:
    recipe = LocalisationRecipe(photographs=4, sample=8, validated=4)
    return Training(loaded=loaded(), backbone="small", views=views(), recipe=recipe, folder=folder, proposals=proposals)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures of curves: a second for each training, and no test here is of them."""
    monkeypatch.setattr("landseer.export.training.curves._draw", lambda rows, path, measure: path.write_bytes(b""))


@pytest.mark.parametrize("descriptor", TRAINERS)
def test_parts_fit_the_head_they_are_of_and_repeat(descriptor: str, tmp_path: Path) -> None:
    proposals = tmp_path / "best.safetensors"
    rpn = RegionProposals.untrained(CHANNELS, seed=1)
    save_file({f"rpn.{name}": value.contiguous() for name, value in rpn.state_dict().items()}, proposals)
    first, again = (train(descriptor, training(tmp_path / name, proposals)) for name in ("a", "b"))
    assert first.descriptor == descriptor and "reduction" in first.learned
    assert all(torch.equal(value, again.tensors[name]) for name, value in first.tensors.items())
    head = untrained_head(descriptor, CHANNELS)
    first.fill("head", head)
    descriptor_, attention = head.eval()(torch.rand(2, CHANNELS, 4, 4), 128, 128)
    assert descriptor_.shape == (2, CHANNELS) and attention.shape == (2, 4, 4)
    assert first.section("reduction")["matrix"].shape == (512, CHANNELS)


def test_proposals_must_be_trained_first(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="landseer train rpn"):
        train("rmac-rpn", training(tmp_path))


def test_proposals_that_no_epoch_improved_are_refused(tmp_path: Path) -> None:
    rpn = RegionProposals.untrained(CHANNELS, seed=1)
    weights = {f"rpn.{name}": value for name, value in rpn.state_dict().items()}
    write_weights(weights, tmp_path / "best.safetensors", epoch=0, measure="boxes found", value=32.4)
    with pytest.raises(WeightsError, match="no epoch improved"):
        train("rmac-rpn", training(tmp_path / "run", tmp_path / "best.safetensors"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A backbone of its own, and photographs: each class one picture in several crops."""
    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=CHANNELS, load=lambda weights, stride: loaded()))
    monkeypatch.setattr(command, "ViewSpec", lambda: ViewSpec(side=64, views=2))
    monkeypatch.setattr(paired_views, "TARGETS", 6)
    monkeypatch.setattr(paired_views, "SIDE", 64)
    monkeypatch.setattr(
        command, "LocalisationRecipe", lambda seed: LocalisationRecipe(photographs=4, sample=8, validated=4, seed=seed)
    )
    for i, pixels in enumerate(list(photographs(side=160))[:CLASSES]):
        for j in range(EACH):
            path = tmp_path / "photos" / f"class {i}" / f"{i}-{j}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[8 * j :, : 160 - 8 * j]).save(path)
    (tmp_path / "photos" / "class 0" / "broken.png").write_bytes(b"not a picture")
    return tmp_path


def options(folder: Path, **changes: object) -> TrainOptions:
    made: dict[str, object] = {
        "wanted": Wanted(backbone="small"),
        "data": f"folder:{folder / 'photos'}",
        "out": folder / "parts.safetensors",
        "folder": folder / "var",
        "command": "a test",
    }
    return TrainOptions(**(made | changes))  # type: ignore[arg-type]


def test_the_command_writes_parts_and_a_card_and_a_head_alone_joins_them(small: Path) -> None:
    """It passes over what is no picture."""
    parts = read_parts(train_parts(options(small), QUIET))
    assert (parts.backbone, parts.descriptor) == ("small", "two-map")
    assert parts.learned == ("whitening", "reduction", "locals", "patches")
    card = (small / "parts.md").read_text()
    assert "| command | a test |" in card and f"| data | folder:{small / 'photos'} |" in card
    assert "drawn targets, twice each" in card
    again = read_parts(train_parts(options(small, section="head", seed=1), QUIET))
    assert again.learned == parts.learned and again.card["reduction"] == parts.card["reduction"]
    changed = {name for name, value in parts.tensors.items() if not torch.equal(value, again.tensors[name])}
    assert changed and all(name.startswith("whitening.") for name in changed)


def test_a_head_of_one_map_learns_alone_and_two_data_sets_have_folders_of_their_own(small: Path) -> None:
    cider = options(small, wanted=Wanted(backbone="small", descriptor="cider"), section="head")
    parts = read_parts(train_parts(cider, QUIET))
    # Without --descriptor the head is of the file's kind.
    cider = options(small, section="head")
    assert (parts.descriptor, parts.learned) == ("cider", ("attention", "whitening"))
    assert "| validation (mAP, %) |" in (small / "parts.md").read_text()
    (small / "photos" / "class 0" / "0-0.png").unlink()
    other = read_parts(train_parts(cider, QUIET))
    assert len(list((small / "var").glob("small-cider-0-*"))) == 2
    assert other.tensors["head.projection.mean"].ne(parts.tensors["head.projection.mean"]).any()


def test_what_cannot_be_trained_is_said_in_one_line(small: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere"):
        train_parts(options(small, data=f"folder:{small / 'nowhere'}"), QUIET)
    one = options(
        small, data=f"folder:{small / 'photos' / 'class 1'}", wanted=Wanted(backbone="small", descriptor="cider")
    )
    with pytest.raises(TrainingError, match="got 1 classes"):
        train_parts(one, QUIET)


def test_a_dry_run_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = tmp_path / "mine.safetensors"
    arguments = ["--train", "folder:nowhere", "--parts", str(parts), "--out", str(tmp_path / "models"), "--dry-run"]
    assert everything.main(arguments) == 0
    assert "would train two-map on folder:nowhere first" in capsys.readouterr().out
    assert not parts.exists()
