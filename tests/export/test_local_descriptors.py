"""Local descriptors: how the backbone makes them, how they are learned, and what they are told apart by."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import Sizes, ensembles
from landseer.ensemble.inference.profile import Profile
from landseer.export import all as everything
from landseer.export.build import OF_ANY_HEAD, Wanted, build, find_parts, fingerprint
from landseer.export.models.backbone import GLOBAL_SCALES, Backbone
from landseer.export.models.heads import GeMHead
from landseer.export.models.pooling import Projection
from landseer.export.models.trunk import BackboneKind as Line
from landseer.export.models.trunk import Loaded, Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.parity import local_cosine
from landseer.export.parts import SHIPPED, Parts, read_parts, write_parts
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.part_trainers import PROJECTIONS, Training, train, with_projection
from landseer.export.training.trunk_views import TrunkViews

CHANNELS = 520
SIZES = Sizes(channels=CHANNELS, reduced=8, locals=40, local=6)


def loaded() -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(3, CHANNELS, 32, stride=32), nn.ReLU())
    trunk = Trunk(features=features, classifier=nn.Identity(), channels=CHANNELS, mean=(127.0,) * 3, std=(60.0,) * 3)
    return Loaded(trunk=trunk.eval(), source="seeded", variant="small")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "small", Line(channels=CHANNELS, load=lambda weights, stride: loaded()))


def shifted(size: int, seed: int) -> Projection:
    draw = torch.Generator().manual_seed(seed)
    return Projection(0.01 * torch.rand(CHANNELS, generator=draw), torch.rand(size, CHANNELS, generator=draw) - 0.5)


@torch.no_grad()
def described(image: Tensor, projection: Projection) -> Any:
    backbone = Backbone(
        trunk=loaded().trunk,
        sizes=SIZES,
        head=GeMHead(CHANNELS),
        scales=GLOBAL_SCALES,
        whitening=Projection.untrained(CHANNELS, CHANNELS, seed=0),
        reduction=Projection.untrained(CHANNELS, SIZES.reduced, seed=1),
        locals=projection,
    )
    return backbone.eval()(image)


def test_each_is_the_projected_unit_feature_of_its_row_and_padding_is_zero() -> None:
    image = torch.randint(0, 256, (2, 96, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    projection = shifted(SIZES.local, seed=1)
    found = described(image, projection)
    assert found.local_descriptors.dtype == torch.float16
    assert found.local_descriptors.shape == (2, SIZES.locals, SIZES.local)
    for features, rows, count in zip(found.local_features, found.local_descriptors, found.local_count, strict=True):
        assert 0 < count.item() < SIZES.locals
        for feature, row in zip(features[:count], rows[:count], strict=False):
            centred = feature.double() / feature.double().norm() - projection.mean.double()
            expected = projection.matrix.double() @ centred
            torch.testing.assert_close(row.double(), expected / expected.norm(), atol=2e-3, rtol=0)
        assert not rows[count:].any()


def test_searching_does_not_ask_for_them() -> None:
    assert "local_descriptors" not in ensembles()["describe"].outputs
    assert "local_descriptors" in ensembles()["describe_full"].outputs


def outputs(rows: list[tuple[float, float, float]], descriptors: np.ndarray) -> dict[str, np.ndarray]:
    places = np.array(rows, np.float32)
    return {
        "local_count": np.array([[len(rows)]], np.int32),
        "local_positions": places[None, :, :2],
        "local_scales": places[None, :, 2],
        "local_descriptors": descriptors[None].astype(np.float16),
    }


def test_parity_compares_places_and_not_rows() -> None:
    places = [(16.0, 16.0, 1.0), (48.0, 16.0, 1.0), (16.0, 16.0, 0.5)]
    wanted = outputs(places, np.eye(3))
    assert local_cosine(wanted, outputs(places[::-1], np.eye(3)[::-1])) == pytest.approx(1.0)
    assert local_cosine(wanted, outputs(places, np.eye(3)[::-1])) == pytest.approx(1 / 3)
    elsewhere = [*places[:2], (80.0, 16.0, 1.0)]
    assert local_cosine(wanted, outputs(elsewhere, np.eye(3))) == pytest.approx(1.0)
    assert local_cosine(wanted, outputs([(0.0, 0.0, 2.0)] * 3, np.eye(3))) == 1.0


def views() -> TrunkViews:
    draw = np.random.default_rng(0)
    own = draw.random((8, 1, CHANNELS, 1, 1)) ** 3
    maps = (own + 0.3 * draw.random((8, 2, CHANNELS, 5, 4))).astype(np.float16)
    maps[0, 0, :, 0] = 0  # places where nothing was found give no feature
    return TrunkViews(maps=maps, side=128, labels=tuple(f"class {i // 2}" for i in range(8)))


def training(folder: Path) -> Training:
    recipe = LocalisationRecipe(photographs=4, sample=8, validated=4)
    card = {"data": "some"}
    return Training(loaded=loaded(), backbone="small", views=views(), recipe=recipe, folder=folder, card=card)


def test_they_are_learned_as_pca_of_all_strong_features_at_once(tmp_path: Path) -> None:
    found, told = PROJECTIONS["locals"](training(tmp_path))
    rows = views().maps.astype(np.float64).transpose(0, 1, 3, 4, 2).reshape(-1, CHANNELS)
    rows = rows[np.linalg.norm(rows, axis=1) > 0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), atol=1e-5)
    variances, axes = np.linalg.eigh(np.cov(rows.T, bias=True))
    whitened = (rows - rows.mean(axis=0)) @ found.matrix.numpy().T.astype(np.float64)
    np.testing.assert_allclose(whitened.var(axis=0), np.sqrt(variances[::-1][:128]), rtol=2e-2)
    cosines = (found.matrix.numpy() * axes.T[::-1][:128]).sum(1) / np.linalg.norm(found.matrix.numpy(), axis=1)
    np.testing.assert_allclose(abs(cosines[:20]), 1.0, atol=1e-3)
    assert told == f"half-whitening PCA of {len(rows)} local features of 8 photographs"


def test_one_projection_is_put_into_parts_that_stay_otherwise(tmp_path: Path) -> None:
    assert tuple(PROJECTIONS) == OF_ANY_HEAD
    whole = train("gem", training(tmp_path))
    without = whole.only("whitening", "reduction")
    assert without.learned == ("whitening", "reduction") and not without.section("locals")
    write_parts(without, tmp_path / "without.safetensors")
    again = with_projection("locals", read_parts(tmp_path / "without.safetensors"), training(tmp_path))
    write_parts(again, tmp_path / "again.safetensors")
    assert again.learned == ("whitening", "reduction", "locals")
    assert again.card["locals"] == whole.card["locals"]
    with (
        safe_open(tmp_path / "without.safetensors", framework="pt") as before,
        safe_open(tmp_path / "again.safetensors", framework="pt") as after,
    ):
        assert set(after.keys()) - set(before.keys()) == {"locals.mean", "locals.matrix"}
        assert all(torch.equal(before.get_tensor(name), after.get_tensor(name)) for name in before.keys())  # noqa: SIM118


def test_a_section_is_for_the_trunk_of_its_parts_alone(tmp_path: Path) -> None:
    write_parts(
        dataclasses.replace(train("gem", training(tmp_path)), trunk_sha256="0" * 64), tmp_path / "a.safetensors"
    )
    arguments = ["--backbone", "small", "--train", "folder:nowhere", "--section", "locals"]
    before = (tmp_path / "a.safetensors").read_bytes()
    assert everything.main([*arguments, "--parts", str(tmp_path / "a.safetensors")]) == 1
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize("given", [("--train", "folder:photos"), ("--parts", "mine.safetensors"), ()])
def test_a_section_needs_data_and_a_file(given: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        everything.main(["--section", "locals", *given])
    assert stop.value.code == 2
    assert "--section needs --train DATA" in capsys.readouterr().err


def built(parts: Parts, path: Path) -> tuple[Profile, Any]:
    write_parts(parts, path)
    networks = build(Wanted(backbone="small", parts=path))
    return networks.profile, networks.modules["backbone"]


def test_a_store_without_local_features_goes_with_any_projection_of_them(tmp_path: Path) -> None:
    whole = train("gem", training(tmp_path))
    with_them, backbone = built(whole, tmp_path / "with.safetensors")
    without, untrained = built(whole.only("whitening", "reduction"), tmp_path / "without.safetensors")
    assert with_them.fingerprint == without.fingerprint
    assert with_them.locals_sha256 != without.locals_sha256
    assert len(with_them.locals_sha256) == 64
    assert "locals" in without.untrained and "locals" not in with_them.untrained
    assert torch.equal(untrained.locals.matrix, Projection.untrained(CHANNELS, 128, seed=3).matrix)
    torch.testing.assert_close(backbone.locals.matrix, whole.section("locals")["matrix"], rtol=1e-3, atol=1e-3)


def test_the_hash_of_local_descriptors_is_of_the_trunk_too() -> None:
    projection = Projection.untrained(CHANNELS, 128, seed=3)
    assert fingerprint(projection, "one trunk") != fingerprint(projection, "another")


def test_the_default_trunk_ships_with_them_trained() -> None:
    line = BACKBONES["efficientnet_lite0"].load(None, "auto")
    parts = find_parts(line, Wanted(backbone="efficientnet_lite0"))
    assert parts is not None and "locals" in parts.learned
    matrix = parts.section("locals")["matrix"]
    assert matrix.shape == (128, 1280) and parts.section("locals")["mean"].shape == (1280,)
    assert "| locals | half-whitening PCA of" in (SHIPPED / "efficientnet_lite0.md").read_text()
