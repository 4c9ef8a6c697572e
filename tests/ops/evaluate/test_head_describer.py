"""The descriptors that tools compute in process are those of an export with the same options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from landseer.export.build import Wanted, build, trunk_sha256
from landseer.export.models.lites import SHIPPED
from landseer.export.models.pooling import Projection, random_rows
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained_trunk import or_trained
from landseer.export.models.trunk import BackboneKind, Loaded, Trunk
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE, IMAGENET
from landseer.export.parts import Parts, write_parts
from landseer.export.training.episodes import Kind
from landseer.export.training.weights import write_weights
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.train.instances import KINDS, in_two_worlds

CHANNELS = 40
INSTANCE = SHIPPED / f"{DEFAULT_BACKBONE}.safetensors"
pytestmark = pytest.mark.usefixtures("eager_trunk")


def empty(variant: str) -> Trunk:
    features = nn.Sequential(nn.Conv2d(3, CHANNELS, 32, stride=32), nn.ReLU())
    made = Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)
    return made.eval()


def seeded(seed: int) -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return empty("one")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Wanted:
    """A trunk of one's own without a head, and parts that were trained on it."""
    load = or_trained("small", lambda *_: Loaded(trunk=seeded(0), source="seeded", variant="one"), empty, "one")
    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=CHANNELS, load=load))
    weights, parts = tmp_path / "best.safetensors", tmp_path / "parts.safetensors"
    state = {f"trunk.{name}": value for name, value in seeded(1).state_dict().items()}
    about = {"trunk": "small one"}
    write_weights(state, weights, epoch=1, measure="mAP", value=1.0, about=about)
    whitening = Projection(torch.full((CHANNELS,), 0.05), random_rows(CHANNELS, CHANNELS, seed=7))
    written = Parts(
        backbone="small",
        trunk_sha256=trunk_sha256(BACKBONES["small"].load(weights, "auto")),
        descriptor="gem",
        learned=("whitening",),
        tensors={f"whitening.{name}": value for name, value in whitening.state_dict().items()},
        card={"seed": 0},
    )
    write_parts(written, parts)
    return Wanted(backbone="small", weights=weights, parts=parts)


def check_served(wanted: Wanted) -> Describer:
    pixels = np.random.default_rng(0).integers(0, 255, (160, 224, 3), np.uint8)
    describe = Describer.of(wanted)
    with torch.inference_mode():
        served = build(wanted).modules["backbone"](torch.from_numpy(pixels)[None]).descriptor[0]
        found = describe.variant.whitening(torch.from_numpy(describe(pixels))[None])[0]
    # Maps are kept in half precision.
    assert float(served @ found) > 0.9999 and served.shape == found.shape
    return describe


@pytest.mark.parametrize(
    ("wanted", "how", "learned"),
    [
        (Wanted(backbone=DEFAULT_BACKBONE), "R-MAC grid beside GeM of stride 16, whitened apart", True),
        (Wanted(backbone=IMAGENET, descriptor="cider"), "CiDeR", False),
        (Wanted(backbone=IMAGENET, descriptor="rmac"), "rmac, untrained", False),
        (Wanted(backbone=IMAGENET, weights=INSTANCE, descriptor="gem"), "GeM off the shelf", False),
    ],
    ids=lambda one: "",
)
def test_it_describes_as_an_export_does(wanted: Wanted, how: str, learned: bool) -> None:
    describe = check_served(wanted)
    assert describe.how.startswith(f"{wanted.backbone}, {how}") and describe.learned_whitening == learned
    assert (str(INSTANCE) in describe.how) == (wanted.weights is not None)


def test_it_describes_by_a_trunk_and_parts_of_ones_own(own: Wanted) -> None:
    describe = check_served(own)
    assert describe.learned_whitening and describe.how == (
        f"small, GeM + learned whitening, weights {own.weights}, parts {own.parts}"
    )
    without = check_served(Wanted(backbone="small", weights=own.weights))
    assert not without.learned_whitening and without.key == describe.key, "they differ in the whitening alone"
    with pytest.raises(WeightsError, match="pass the weights it was trained on with --weights"):
        Describer.of(Wanted(backbone="small", parts=own.parts))
    with pytest.raises(WeightsError, match="holds a gem head; got --descriptor rmac"):
        Describer.of(Wanted(backbone="small", weights=own.weights, parts=own.parts, descriptor="rmac"))


def test_it_describes_by_a_head_that_was_trained_with_its_trunk(own: Wanted, tmp_path: Path) -> None:
    path = tmp_path / "with-head.safetensors"
    state = load_file(own.weights or "") | {"head.pool.p": torch.tensor([2.0])}
    about = {"trunk": "small one", "method.head": "gem"}
    write_weights(state, path, epoch=1, measure="mAP", value=1.0, about=about)
    describe = check_served(Wanted(backbone="small", weights=path))
    assert "gem, trained with the trunk" in describe.how and not describe.learned_whitening


def test_worlds_differ_only_where_the_whitening_was_learned(own: Wanted) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30).repeat(3)
    rows = [rng.standard_normal((30, 1, CHANNELS)) + 0.3 * rng.standard_normal((30, 3, CHANNELS)) for _ in KINDS]
    pooled = {name: Kind(row.reshape(90, -1).astype(np.float32), labels) for name, row in zip(KINDS, rows, strict=True)}
    first, second = in_two_worlds(pooled, Describer.of(own), seed=0)
    assert not np.allclose(first[0].vectors, second[0].vectors, atol=0.01)
    plain = Describer.of(Wanted(backbone="small", weights=own.weights))
    for world in in_two_worlds(pooled, plain, seed=0):
        for name, kind in zip(KINDS, world, strict=True):
            unit = pooled[name].vectors / np.linalg.norm(pooled[name].vectors, axis=1, keepdims=True)
            np.testing.assert_allclose(kind.vectors, unit, atol=1e-6)
