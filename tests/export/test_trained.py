"""From `landseer train` to the export: trunk and head of best.safetensors, and what is refused."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from landseer.client import cli
from landseer.ensemble.inference.contracts import Sizes, graphs
from landseer.export.all import main as export_main
from landseer.export.build import Wanted, build, default_backbone, trunk_sha256, untrained_head
from landseer.export.examples import Case
from landseer.export.lattqe_file import SHIPPED, read_lattqe, write_lattqe
from landseer.export.models.backbone import LOCAL_SCALES
from landseer.export.models.backbone import Backbone as Graph
from landseer.export.models.heads import HEADS
from landseer.export.models.lattqe import LAttQE
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.pooling import Projection
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.models.rpn import RegionProposals
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import read_proposals, read_trained
from landseer.export.models.trained_trunk import or_trained
from landseer.export.models.trunk import BackboneKind, Loaded, Trunk
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE, IMAGENET
from landseer.export.parity import check, eager
from landseer.export.parts import Parts, write_parts
from landseer.export.training.recipes import METHODS
from landseer.export.training.weights import write_weights

CHANNELS = 520
SMALL = ("--side", "96", "--batch", "4", "--device", "cpu", "--backbone", "small", "--epochs", "1")
SMALL += ("--rate", "0.02", "--tuples", "4", "--accumulate", "1", "--pool", "20")


def empty(variant: str) -> Trunk:
    features = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.Conv2d(8, CHANNELS, 4, stride=4), nn.ReLU())
    return Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)


def fresh(weights: Path | None, stride: str) -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Loaded(trunk=empty("one").eval(), source="seeded", variant="one")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    load = or_trained("small", fresh, empty, "one")
    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=CHANNELS, load=load))
    monkeypatch.setattr("landseer.export.training.curves._draw", lambda rows, path, measure: path.write_bytes(b""))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of four photographs, each class of one pattern."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(5):
        pattern = draw.integers(0, 255, (5, 5, 3)).astype(np.uint8)
        for place in range(4):
            pixels = cv2.resize(pattern, (96, 80), interpolation=cv2.INTER_CUBIC).astype(float)
            pixels = np.roll(pixels, draw.integers(0, 40, 2), axis=(0, 1)) * draw.uniform(0.3, 1.0, 3)
            path = folder / f"class{number}" / f"{place}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.clip(pixels + draw.normal(scale=20, size=pixels.shape), 0, 255).astype(np.uint8)).save(
                path
            )
    return folder


def landseer_train(method: str, data: Path, out: Path) -> Path:
    words = ["train", method, f"folder:{data}", "--out", str(out), *SMALL, "--validate", "0.4"]
    assert cli.main(words) == 0
    return out / "best.safetensors"


def trained_modules(path: Path, kind: str) -> tuple[Trunk, nn.Module]:
    """Fill trunk and head from the file by hand, not by the code under test."""
    state, trunk, head = load_file(path), fresh(None, "auto").trunk, untrained_head(kind, CHANNELS)
    for name, module in (("trunk", trunk), ("head", head)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
    return trunk, head


@pytest.fixture
def improving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is the best so far, so that the file holds what a few steps have made, whatever they did."""
    count = itertools.count()
    monkeypatch.setattr("landseer.export.training.picture_task.validate", lambda *_, **__: float(next(count)))


@pytest.mark.parametrize("method", ["cider", "cider-ft", "triplet", "contrastive", "supcon"])
def test_what_each_method_trained_is_what_is_built(improving: None, method: str, data: Path, tmp_path: Path) -> None:
    path = landseer_train(method, data, tmp_path / "run")
    kind = METHODS[method][-1].head
    networks = build(Wanted(backbone="small", weights=path))
    trunk, head = trained_modules(path, kind)
    before = fresh(None, "auto").trunk
    assert not torch.equal(trunk.state_dict()["features.0.weight"], before.state_dict()["features.0.weight"])
    built: Any = networks.modules["backbone"]
    for module, expected in ((built.trunk, trunk), (built.head, head)):
        found = module.state_dict()
        assert found.keys() == expected.state_dict().keys()
        assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert networks.profile.descriptor == kind
    learned = {"cider": {"attention", "whitening"}, "rmac": {"regional whitening", "whitening"}, "gem": set()}[kind]
    possible = {"whitening", "reduction", "locals", "lattqe", *HEADS[kind].learned}
    assert set(networks.profile.untrained) == possible - learned
    assert "run/best.safetensors of landseer train, epoch 1, long side 96 px" in networks.source


def test_what_is_exported_says_what_the_trained_modules_say(improving: None, data: Path, tmp_path: Path) -> None:
    """That the graph of such a module says the same is tested in test_heads.py."""
    path = landseer_train("cider", data, tmp_path / "run")
    networks = build(Wanted(backbone="small", weights=path))
    trunk, head = trained_modules(path, "cider")
    sizes = networks.profile.sizes
    by_hand = Graph(
        trunk=trunk,
        sizes=sizes,
        head=head,
        scales=LOCAL_SCALES,
        whitening=Projection.untrained(CHANNELS, CHANNELS, seed=0),
        reduction=Projection.untrained(CHANNELS, sizes.reduced, seed=1),
        locals=Projection.untrained(CHANNELS, sizes.local, seed=3),
    ).eval()
    graph, draw = graphs(sizes)["backbone"], np.random.default_rng(0)
    shapes = ((2, 96, 128), (1, 160, 96))
    cases = [
        Case(name=str(shape), inputs={"image": draw.integers(0, 256, (*shape, 3), dtype=np.uint8)}, real=False)
        for shape in shapes
    ]
    expected = [(case, eager(by_hand, graph, case.inputs)) for case in cases]
    found = check(graph, expected, lambda inputs: eager(networks.modules["backbone"], graph, inputs))
    assert found.failures("fp32") == []


def write(path: Path, kind: str = "gem", epoch: int = 1, **about: str) -> Path:
    """A file as `landseer train` writes it, of the seeded trunk and head."""
    state = {f"trunk.{name}": value for name, value in fresh(None, "auto").trunk.state_dict().items()}
    state |= {f"head.{name}": value for name, value in untrained_head(kind, CHANNELS).state_dict().items()}
    told = {"method.kind": "labels", "method.head": kind, "trunk": "small one", "data.long_side": 96} | about
    write_weights(state, path, epoch=epoch, measure="mAP", value=1.0, about=told)
    return path


@pytest.mark.parametrize(
    ("about", "options", "said"),
    [
        ({}, ("--descriptor", "cider"), "holds a gem head; got --descriptor cider"),
        ({"trunk": "resnet50 v1.5"}, (), "holds a resnet50; got --backbone small"),
        ({"trunk": "resnet50 v1.5"}, ("--backbone", "resnet50", "--stride", "v1"), "holds a resnet50 v1.5; got --stri"),
        ({"trunk": ""}, ("--backbone", "resnet50"), "does not say which resnet50 it holds: pass --stride v1 or"),
        ({"trunk": ""}, ("--backbone", "efficientnet_lite0"), "does not fit Trunk"),
        ({"method.head": "vlad"}, (), "holds a vlad head; expected one of gem, rmac"),
        ({"method.head": ""}, (), "does not say which head it holds: name it with --descriptor"),
        ({"method.head": ""}, ("--descriptor", "cider"), "does not fit CiDeR"),
        ({}, ("--whitening", "x:ms"), "not a checkpoint of cnnimageretrieval-pytorch"),
    ],
)
def test_what_disagrees_is_refused_in_a_line(
    about: dict[str, str], options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "best.safetensors", **about)
    refused(capsys, said, "--backbone", "small", "--weights", path, *options)


def test_weights_that_training_did_not_improve_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "best.safetensors", epoch=0)
    refused(capsys, "which no epoch improved on: train longer", "--backbone", "small", "--weights", path)
    # Their trunk is as good as it was: to train on is no mistake.
    assert BACKBONES["small"].load(path, "auto").trained is not None


def refused(capsys: pytest.CaptureFixture[str], said: str, *arguments: object) -> None:
    assert export_main([*map(str, arguments), "--dry-run", "--out", "nowhere"]) == 1
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1, told


def test_a_file_from_before_files_said_what_they_hold_needs_the_heads_name(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file(load_file(write(tmp_path / "best.safetensors", "rmac")), path)
    assert build(Wanted(backbone="small", weights=path, descriptor="rmac")).profile.descriptor == "rmac"


@pytest.mark.parametrize(
    ("only", "rename", "said"),
    [
        ("head", "head", "holds a head without the trunk that it was trained on"),
        ("head", "rpn", "holds a detector: pass it with --detector rpn --detector-weights"),
        ("head", "x", "holds neither trunk.* nor head.*"),
    ],
)
def test_what_has_no_trunk_is_refused(only: str, rename: str, said: str, tmp_path: Path) -> None:
    found = load_file(write(tmp_path / "best.safetensors"))
    some = {name.replace(only, rename): value for name, value in found.items() if name.startswith(only)}
    save_file(some, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=said.replace("*", r"\*")):
        BACKBONES["small"].load(tmp_path / "other.safetensors", "auto")


def parts_of(loaded: Loaded, path: Path) -> Path:
    made_of = {"whitening": 512, "reduction": 512, "locals": 128}
    states = {section: Projection.untrained(CHANNELS, size, seed=9).state_dict() for section, size in made_of.items()}
    tensors = {f"{section}.{name}": x for section, state in states.items() for name, x in state.items()}
    made = Parts(
        backbone="small",
        trunk_sha256=trunk_sha256(loaded),
        descriptor="gem",
        learned=tuple(states),
        tensors=tensors,
    )
    write_parts(made, path)
    return path


def test_the_export_takes_a_trained_expansion_and_marks_a_seeded_one(tmp_path: Path) -> None:
    trained = RelationalLAttQE.untrained(Sizes(channels=CHANNELS), seed=1)
    write_lattqe(trained, tmp_path / "lattqe.safetensors", {})
    with_it = build(Wanted(backbone="small", lattqe=tmp_path / "lattqe.safetensors"))
    assert "lattqe" not in with_it.profile.untrained
    found = with_it.modules["lattqe"].state_dict()
    assert all(torch.equal(found[name], value) for name, value in trained.state_dict().items())
    seeded, again = (build(Wanted(backbone="small")) for _ in range(2))
    assert "lattqe" in seeded.profile.untrained
    network = seeded.modules["lattqe"]
    assert isinstance(network, LAttQE) and network.shape["width"] == 64 and len(network.layers) == 3
    assert all(
        torch.equal(value, again.modules["lattqe"].state_dict()[name]) for name, value in network.state_dict().items()
    )
    assert seeded.profile.fingerprint == with_it.profile.fingerprint


@pytest.mark.parametrize("backbone", [DEFAULT_BACKBONE, IMAGENET])
def test_both_trunks_of_lite0_have_an_expansion_of_their_own(backbone: str) -> None:
    networks = build(Wanted(backbone=backbone))
    assert networks.profile.untrained == () and isinstance(networks.modules["lattqe"], MeanLAttQE)
    shipped = read_lattqe(SHIPPED / f"{backbone}-two-map.safetensors", networks.profile.sizes).state_dict()
    assert all(torch.equal(shipped[name], value) for name, value in networks.modules["lattqe"].state_dict().items())
    other = build(Wanted(backbone=backbone, descriptor="cider")).profile.untrained
    assert other == (("lattqe",) if backbone == IMAGENET else ("attention", "whitening", "lattqe"))


@pytest.mark.parametrize(
    ("weights", "descriptor", "expected"),
    [
        (None, None, DEFAULT_BACKBONE),
        (None, "gem", DEFAULT_BACKBONE),
        (None, "cider", IMAGENET),
        ("none.pth", None, IMAGENET),
        ("none.safetensors", None, IMAGENET),
        ("best.safetensors", None, "small"),
        ("best.safetensors", "cider", "small"),
    ],
)
def test_a_command_that_names_no_backbone_takes_that_of_the_weights_or_of_the_parts(
    weights: str | None, descriptor: str | None, expected: str, tmp_path: Path
) -> None:
    write(tmp_path / "best.safetensors", "cider")
    assert default_backbone(tmp_path / weights if weights else None, descriptor) == expected


def test_the_trunk_that_ships_is_lite0_but_for_its_last_blocks() -> None:
    first, tuned = (BACKBONES[name].load(None, "auto") for name in (IMAGENET, DEFAULT_BACKBONE))
    assert tuned.trained is None and tuned.trunk.backbone == DEFAULT_BACKBONE and tuned.source.endswith("as shipped")
    picture = 255 * torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        before, after = first.trunk.maps(picture), tuned.trunk.maps(picture)
    torch.testing.assert_close(after.middle, before.middle, atol=0.05, rtol=0.02)
    assert (after.last - before.last).abs().mean() > 0.01
    assert not any("fc" in name or "classifier" in name for name in tuned.trunk.state_dict())
    with pytest.raises(WeightsError, match="has the weights that ship; for a\\.pth pass"):
        BACKBONES[DEFAULT_BACKBONE].load(Path("a.pth"), "auto")


def test_a_trunk_without_a_head_is_weights_like_any_other(tmp_path: Path) -> None:
    state = {f"trunk.{name}": value for name, value in fresh(None, "auto").trunk.state_dict().items()}
    told = {"method.kind": "instance", "trunk": "small one"}
    for epoch in (0, 2):
        write_weights(state, tmp_path / f"{epoch}.safetensors", epoch=epoch, measure="mAP", value=1.0, about=told)
    loaded = BACKBONES["small"].load(tmp_path / "2.safetensors", "auto")
    assert loaded.trained is None and "2.safetensors of landseer train, epoch 2" in loaded.source
    networks = build(Wanted(backbone="small", weights=tmp_path / "2.safetensors"))
    assert networks.profile.descriptor == "gem"
    with pytest.raises(WeightsError, match="holds the initial weights, which no epoch improved on"):
        BACKBONES["small"].load(tmp_path / "0.safetensors", "auto")


def test_of_parts_beside_a_trained_head_those_of_any_head_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "best.safetensors", "cider")
    parts = parts_of(BACKBONES["small"].load(path, "auto"), tmp_path / "parts.safetensors")
    networks = build(Wanted(backbone="small", weights=path, parts=parts))
    assert networks.profile.untrained == ("lattqe",)
    built: Any = networks.modules["backbone"]
    assert built.whitening.matrix.equal(torch.eye(CHANNELS))
    for found in (built.reduction.matrix, built.locals.matrix):
        expected = Projection.untrained(CHANNELS, len(found), seed=9).matrix
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(WeightsError, match="holds trained parts: pass it with --parts"):
        read_trained(parts)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_the_shipped_backbones_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    """By a trunk with weights of its own, and what a training says of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = _loaded(name)
    state = {f"trunk.{key}": value for key, value in made.trunk.state_dict().items()}
    state |= {f"head.{key}": value for key, value in untrained_head("gem", made.trunk.channels).state_dict().items()}
    told = {"method.head": "gem", "trunk": f"{name} {made.variant}"}
    write_weights(state, tmp_path / "a.safetensors", epoch=2, measure="mAP", value=1.0, about=told)
    back = BACKBONES[name].load(tmp_path / "a.safetensors", "auto")
    assert (back.trunk.backbone, back.trunk.variant, back.variant) == (name, made.variant, made.variant)
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        assert torch.equal(made.trunk(x), back.trunk(x))
    assert trunk_sha256(back) == trunk_sha256(made)


def _loaded(name: str) -> Loaded:
    if name != "resnet50":
        loaded = BACKBONES[name].load(None, "auto")
        loaded.trunk.mean += 3.0
        return loaded
    import torchvision.models

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seeded.pth")
        torch.save(torchvision.models.resnet50().state_dict(), path)
        return BACKBONES[name].load(path, "v1")


def proposals(path: Path, **about: Any) -> Path:
    state = {f"rpn.{k}": v for k, v in RegionProposals.untrained(CHANNELS, seed=1).state_dict().items()}
    write_weights(state, path, epoch=about.pop("epoch", 1), measure="found", value=1.0, about=about)
    return path


def test_region_proposals_of_another_trunk_are_refused(tmp_path: Path) -> None:
    here = trunk_sha256(fresh(None, "auto"))
    right = proposals(tmp_path / "right.safetensors", trunk_sha256=here)
    wrong = proposals(tmp_path / "wrong.safetensors", trunk_sha256="0" * 64)
    old = proposals(tmp_path / "old.safetensors")
    start = proposals(tmp_path / "start.safetensors", trunk_sha256=here, epoch=0)

    def built(path: Path) -> str:
        return build(Wanted(backbone="small", detector="rpn", detector_weights=path)).source

    assert built(right).endswith("detector rpn, file right.safetensors")
    assert built(old).endswith("file old.safetensors, which does not say which trunk it was trained on")
    for path, said in ((wrong, "of another trunk"), (start, "no epoch improved")):
        with pytest.raises(WeightsError, match=said):
            built(path)
        with pytest.raises(WeightsError, match=said):
            read_proposals(path, here)
    state, note = read_proposals(right, here)
    assert note == "" and state.keys() == RegionProposals.untrained(CHANNELS, seed=0).state_dict().keys()


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (("matplotlib",), "--train needs matplotlib, which is not installed"),
        (
            ("pytorch_metric_learning", "matplotlib"),
            "--train needs pytorch_metric_learning and matplotlib, which are not installed",
        ),
    ],
)
def test_the_extra_for_training_is_named_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: Sequence[str],
    said: str,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find(name))
    assert export_main(["--train", "folder:nowhere"]) == 1
    assert capsys.readouterr().err == f"export: error: {said}; pip install 'landseer[train]'\n"


def test_the_help_names_the_extra_for_training(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        export_main(["--help"])
    assert "needs pip install 'landseer[train]'" in " ".join(capsys.readouterr().out.split())
